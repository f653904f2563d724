"""From the network's input to labels on the source's grid, in one pass over the scan.

Windows go along one axis. What they say is summed in a `Slab` that holds the rows which windows still add to. Rows that
are complete are divided by the sum of weights, put on the source's grid and decided, a block of rows at a time, and
dropped. So memory depends on the classes and the window, not on the length of the scan.

Every voxel's numbers are added and multiplied in an order that the scan, the model and the options alone decide: labels
are the same whatever the slab is kept in, and whether or not restoring overlaps with the network.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn import functional

from volseg.config import Recipe
from volseg.events import Stage
from volseg.inference.blend import gaussian_weight
from volseg.inference.engines import Engine
from volseg.inference.engines.head import Head, joined
from volseg.inference.layout import Layout
from volseg.inference.maps import MapKinds, Maps
from volseg.inference.quality import Agreement, Quality, by_value
from volseg.inference.restorer import RESTORERS, Restorer, Worker
from volseg.inference.sheet import Sheet, bytes_of, painted
from volseg.inference.slab import Slab
from volseg.inference.sliding import Constant, flip_sets, window_values
from volseg.machine import single_threads
from volseg.preprocess import Prepared
from volseg.volume import LabelVolume, Source


@dataclass(frozen=True)
class Placement:
    """Where a slab is held, and whether rows are restored while the network works on those that follow.

    Attributes
    ----------
    in_file
        Whether the slab is in a temporary file mapped to memory, not in memory itself.
    overlap
        Whether the slab holds the rows that are being restored, too.
    """

    in_file: bool = False
    overlap: bool = True


@dataclass
class Streamed:
    """What came out.

    Attributes
    ----------
    mask
        The mask on the source's grid, not post-processed.
    windows
        Number of windows; mirrored passes aren't counted.
    quality
        Quality of each label, by its value.
    maps
        Maps of probabilities and entropy, where they were asked for.
    seconds
        Wall time. ``network``: until the last window was done; ``restore``: the wait for restored rows beside that.
    """

    mask: LabelVolume
    windows: int
    quality: dict[int, Quality]
    maps: Maps | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def layout_of(prepared: Prepared, recipe: Recipe) -> Layout:
    """How a prepared scan is streamed."""
    d, h, w = prepared.tensor_CDHW.shape[1:]
    return Layout((d, h, w), prepared.box.shape, recipe.window, recipe.tile_step, prepared.nearest_axis, prepared.part)


def stream(  # noqa: PLR0913 (each is a choice of its own)
    prepared: Prepared,
    engines: Sequence[Engine],
    recipe: Recipe,
    source: Source,
    *,
    mirrored: Sequence[int] = (),
    wanted: Collection[int] | None = None,
    kinds: MapKinds | None = None,
    placement: Placement | None = None,
    stage: Stage | None = None,
) -> Streamed:
    """Labels of a scan: windows averaged with a Gaussian weight, restored on the source's grid and decided there.

    Logits are interpolated linearly and decided on the source's grid: the largest wins (softmax), or each region whose
    logit is above 0 is painted in the recipe's order, and kept whole in layers where any overlap (sigmoid). Labels
    themselves are never interpolated. What the network didn't see is background. Where the recipe resamples images,
    labels are decided on the model's grid instead, and the source's voxels take those of the nearest.

    Parameters
    ----------
    prepared
        The network's input; where it is smaller than the window it is padded with 0, the mean of a normalised scan.
    engines
        Engines, one a fold; their logits are averaged. Either all have heads or none.
    recipe
        Recipe, for window, step, labels and output.
    source
        Source of the scan.
    mirrored
        Axes (0 D, 1 H, 2 W) along which mirrored passes are averaged.
    wanted
        Values of the labels to find, all unless given. With softmax the mask is that of all labels, the others taken
        out; with sigmoid other regions aren't painted, so that none is hidden by one that isn't wanted.
    kinds
        Maps to make beside the labels; none unless given.
    placement
        Place of the slab; in memory unless given.
    stage
        Stage that this work is told as; nobody hears of it unless given.

    Raises
    ------
    RefusalError
        Code ``memory``: no room for the slab's file, or for the maps'.
    ModelError
        Logits that are no finite numbers.
    CancelledError
        The stage was told to end; at most one more window was computed.
    """
    placement = placement or Placement()
    table = recipe.label_table()
    dtype = np.uint8 if max(label.value for label in table) < 256 else np.uint16
    layout = layout_of(prepared, recipe)
    softmax = recipe.output == "softmax"
    sheet = Sheet(prepared, layout, *((1, dtype) if softmax else (bytes_of(recipe.outputs), np.uint8)))
    flips = flip_sets(mirrored)
    head, channels = _channels(engines, recipe.outputs)
    plane = (*layout.plane, slab_values(engines, recipe.outputs))
    slab = Slab(layout.open_rows(overlap=placement.overlap), plane, in_file=placement.in_file)
    # Engines that share their place in the slab are averaged there; others by the joined head.
    passes = len(flips) * (len(engines) if head is None else 1)
    asked = {label.value for label in table} if wanted is None else wanted
    maps = Maps(recipe, layout, prepared, kinds) if kinds else None
    restorer = Restorer(layout, slab, passes, head, recipe, asked, sheet.rows, maps)
    agreement = Agreement(restorer.decision, recipe.outputs, layout.window, len(flips) * len(engines))
    start = time.perf_counter()
    with single_threads(RESTORERS) as pool:
        worker = Worker(restorer, pool, overlap=placement.overlap)
        windows = _sum_windows(
            prepared.tensor_CDHW, engines, channels, layout, flips, slab, worker, agreement, stage or Stage()
        )
    if maps is not None:
        maps.finish()
    sheet.finish()
    values = [label.value for label in recipe.labels]
    array, layers = (sheet.arrays[0], ()) if softmax else painted(sheet.arrays, values, dtype)
    total = time.perf_counter() - start
    mask = LabelVolume(array, prepared.grid, table, source, f"{recipe.name} {recipe.version}", layers)
    seconds = {"network": round(total - worker.waited, 4), "restore": round(worker.waited, 4)}
    return Streamed(mask, windows, by_value(recipe, restorer.confidence, agreement), maps, seconds)


def slab_values(engines: Sequence[Engine], outputs: int) -> int:
    """Numbers that a slab holds for a voxel: logits, or the features of every engine."""
    last = _channels(engines, outputs)[1][-1]
    return int(last.stop)


def _channels(engines: Sequence[Engine], outputs: int) -> tuple[Head | None, list[slice]]:
    """What makes logits of a voxel's values in the slab, and where among these each engine's are added."""
    heads = [engine.head for engine in engines if engine.head is not None]
    if not heads:
        return None, [slice(0, outputs)] * len(engines)
    ends = list(itertools.accumulate(len(head.weight) for head in heads))
    return joined(heads), [slice(end - len(head.weight), end) for head, end in zip(heads, ends, strict=True)]


def _sum_windows(  # noqa: PLR0913 (what the loop adds to)
    tensor_CDHW: Tensor,
    engines: Sequence[Engine],
    channels: Sequence[slice],
    layout: Layout,
    flips: Sequence[list[int]],
    slab: Slab,
    worker: Worker,
    agreement: Agreement,
    stage: Stage,
) -> int:
    """Add what the network says of each window to the slab, and return the number of windows."""
    first, *others = layout.turned
    weight_RHW = gaussian_weight(layout.window).permute(layout.turned)
    if any(map(any, layout.padding)):
        tensor_CDHW = functional.pad(tensor_CDHW, [n for pair in reversed(layout.padding) for n in pair])
    count, passes = sum(map(len, layout.windows)), 0
    constant = Constant(engines)
    stage.reached(0, count)
    for row in layout.windows:
        begin = row[0][first].start
        worker.complete(begin)
        for place, number, values_DHWV in window_values(tensor_CDHW, engines, row, flips, constant):
            within = (place[others[0]], place[others[1]], channels[number])
            slab.add(begin, within, values_DHWV.permute(*layout.turned, 3), weight_RHW)
            agreement.add(place, values_DHWV, engines[number].head)
            del values_DHWV  # before the next are made
            passes += 1
            if passes % (len(flips) * len(engines)) == 0:
                stage.reached(passes // (len(flips) * len(engines)), count)
    worker.finish(layout.padded[first])
    return count
