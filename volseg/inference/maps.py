"""Maps of probabilities and entropy on the source's grid, none of which is ever held whole.

Blocks are those of `volseg.inference.decide`: their logits are interpolated, then made probabilities (as nnU-Net does),
and kept in `STEPS` steps. A block in which bounds leave each value one step needs no arithmetic, and most blocks of a
scan are such. Of the others, tiles wait in a temporary file: one a block and map, none where it would be 0 throughout.
A map is put together from its tiles, a few slices at a time.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.config import Recipe
from volseg.errors import RefusalError
from volseg.geometry import Geometry
from volseg.inference.decide import BLOCK, block_logits, bounds
from volseg.inference.layout import Layout
from volseg.inference.probabilities import matter, output_of
from volseg.inference.restore import slabs_on_grid
from volseg.preprocess import Prepared
from volseg.resample import outer_nearest_index

#: Steps from 0 to a map's largest value.
STEPS = 255
#: Bytes of tiles that are held in memory before they go to a file.
SMALL = 1 << 24
#: Share of a step by which rounding in single precision, and what is neglected, may move a value.
ROUNDING = 0.01

Steps = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MapKinds:
    """Which maps of a scan to make.

    Attributes
    ----------
    labels
        Values of the labels whose probabilities are asked for; with them comes the background's, where it is a class.
    entropy
        Whether the entropy is asked for.
    """

    labels: frozenset[int] = frozenset()
    entropy: bool = False

    def __bool__(self) -> bool:
        return bool(self.labels) or self.entropy


@dataclass(frozen=True)
class Map:
    """What one map shows.

    Attributes
    ----------
    number
        Index of the network's output; one more than its last: the entropy.
    name
        Name of the label; ``background``, ``entropy``.
    value
        Value of the label in the mask, 0 for the background; None: no label.
    slope
        Value of a step: a probability, or bits.
    outside
        Steps where the network saw nothing.
    description
        A text for people.
    """

    number: int
    name: str
    value: int | None
    slope: float
    outside: int
    description: str


def _listed(recipe: Recipe, kinds: MapKinds, bits: float) -> tuple[Map, ...]:
    """The maps: the background where it is a class, the labels in the recipe's order, the entropy."""
    softmax = recipe.output == "softmax"
    classes = [("background", 0)] if softmax else []
    classes += [(label.name, label.value) for label in recipe.labels]
    maps = [
        Map(number, name, value, 1 / STEPS, 0 if value else STEPS, f"probability of {name} ({recipe.output})")
        for number, (name, value) in enumerate(classes)
        if kinds.labels and (value == 0 or value in kinds.labels)
    ]
    if kinds.entropy:
        said = "entropy in bits" if softmax else "entropy in bits, summed over regions"
        maps.append(Map(len(classes), "entropy", None, bits / STEPS, 0, said))
    return tuple(maps)


class Maps:
    """The maps of one scan, filled row of blocks by row of blocks: in any order, by several threads.

    Parameters
    ----------
    recipe
        Recipe, for its labels and output.
    layout, prepared
        Layout of the scan, and its tensor.
    kinds
        Kinds of maps to make.

    Attributes
    ----------
    maps
        Maps that there are.
    """

    def __init__(self, recipe: Recipe, layout: Layout, prepared: Prepared, kinds: MapKinds) -> None:
        self.layout, self.prepared, self.kinds = layout, prepared, kinds
        self.output = output_of(recipe)
        bits = self.output.largest_entropy(recipe.outputs)
        self.steps_per_bit = STEPS / bits
        self.maps = _listed(recipe, kinds, bits)
        self._asked = torch.zeros(recipe.outputs, dtype=torch.bool)
        self._asked[[each.number for each in self.maps if each.value is not None]] = True
        self._lock = threading.Lock()
        self._counts = tuple(len(axis.blocks) for axis in layout.axes)
        # Three numbers a tile: its map's, its block's, and its place in the file, or -n of one that is n throughout.
        self._index = array("q")
        self._ordered: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
        # Nameless, and gone with this object: nothing stays behind.
        self._file = tempfile.SpooledTemporaryFile(SMALL, prefix="volseg-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def add(self, values_RHWC: Tensor, row: int) -> None:
        """Take one row of blocks.

        Parameters
        ----------
        values_RHWC
            Logits of the rows that the row of blocks needs, as `volseg.inference.decide.restore_rows` has them.
        row
            Index of the row of blocks.

        Raises
        ------
        ModelError
            Logits that are no finite numbers.
        RefusalError
            Code ``memory``: the disk has no room for the tiles.
        """
        axes = self.layout.axes
        lower, upper = self.output.between(*bounds(values_RHWC, axes))
        least = (lower * STEPS + 0.5 - ROUNDING).floor().clamp(min=0)
        certain = torch.ones(lower.shape[:2], dtype=torch.bool)
        if self.kinds.labels:
            fixed = least == (upper * STEPS + 0.5 + ROUNDING).floor()
            certain &= (fixed | ~self._asked).all(-1)
        if self.kinds.entropy:
            certain &= self.output.entropy_below(lower, upper) * self.steps_per_bit < 0.5 - ROUNDING
        constant = certain[..., None] & self._asked & (least > 0)
        with self._lock:
            for h, w, number in constant.nonzero().tolist():
                self._record(number, (row, h, w), -int(least[h, w, number]))
        kept = matter(upper)
        for h, w in (~certain).nonzero().tolist():
            classes = kept[h, w].nonzero().flatten()
            self._compute(block_logits(values_RHWC, axes, (row, h, w), classes), classes, (row, h, w))

    def _compute(self, logits_RHWC: Tensor, classes: Tensor, block: tuple[int, int, int]) -> None:
        """Keep what isn't 0 of one block; `classes` are those whose logits are given."""
        tiles: list[tuple[int, bytes]] = []
        if self.kinds.labels:
            values_NC = self.output.probabilities(logits_RHWC).flatten(0, 2)
            used = ((values_NC.amax(0) * STEPS + 0.5 >= 1) & self._asked[classes]).nonzero().flatten()
            # Most classes round to 0 throughout: only the others are brought into the order of tiles.
            steps_CN = (values_NC.index_select(1, used).t().contiguous() * STEPS + 0.5).byte().numpy()
            tiles += [(number, tile.tobytes()) for number, tile in zip(classes[used].tolist(), steps_CN, strict=True)]
        if self.kinds.entropy:
            steps = (self.output.entropy(logits_RHWC) * self.steps_per_bit + 0.5).byte()
            tiles += [(len(self._asked), steps.contiguous().numpy().tobytes())] if steps.any() else []
        with self._lock, _room():
            place = self._file.seek(0, 2)
            for number, tile in tiles:
                self._record(number, block, place)
                place += self._file.write(tile)

    def _record(self, number: int, block: tuple[int, int, int], place: int) -> None:
        self._index.extend((number, int(np.ravel_multi_index(block, self._counts)), place))

    def finish(self) -> None:
        """All blocks are there. `RefusalError` as in `add`."""
        with _room():
            self._file.flush()

    def slabs(self, chosen: Map, geometry: Geometry | None = None) -> Iterator[Steps]:
        """Steps of one map, a few slices at a time.

        Parameters
        ----------
        chosen
            One of `maps`.
        geometry
            The grid of the mask: the volume's, unless that is a straight one that the scan's own slices were put on.

        Yields
        ------
        array
            (i, j, n): the next n slices along k of that grid.
        """
        slabs = self._decided(chosen)
        if self.prepared.zoomed is not None:
            slabs = self._put_back(slabs)
        if geometry is None or geometry.same_grid(self.prepared.grid):
            return slabs
        return slabs_on_grid(slabs, self.prepared.grid, geometry, chosen.outside)

    def values(self, chosen: Map, geometry: Geometry | None = None) -> npt.NDArray[np.float32]:
        """(i, j, k) of one map, whole: probabilities, or bits."""
        return np.concatenate(list(self.slabs(chosen, geometry)), 2) * np.float32(chosen.slope)

    def _decided(self, chosen: Map) -> Iterator[Steps]:
        """`slabs` on the grid that labels are decided on, its axes turned as the source's."""
        layout, axes, box = self.layout, self.prepared.axes, self.prepared.box
        sizes_DHW = self.prepared.zoomed or self.prepared.turned_shape
        i, j, k = axes.inverse().order
        along = layout.turned.index(k)
        part = list(box.slices)
        part[k] = slice(None)
        for start, stop, block in _pieces(layout.axes[along].blocks, box.start[k], sizes_DHW[k], axes.flipped[k]):
            slab = np.full((sizes_DHW[i], sizes_DHW[j], stop - start), chosen.outside, np.uint8, order="F")
            if block is not None:
                seen_RHW = axes.apply(slab)[tuple(part)].transpose(layout.turned)
                seen_RHW[...] = 0
                for place, tile in self._tiles(chosen.number, along, block):
                    place[along] = slice(None)
                    seen_RHW[tuple(place)] = tile
            yield slab

    def _tiles(self, number: int, along: int, block: int) -> Iterator[tuple[list[slice], Steps | int]]:
        """Where the tiles of one map lie whose block has a number along one axis, and what they hold."""
        index, firsts = self._sorted(along)
        key = number * self._counts[along] + block
        for flat, place in index[slice(*np.searchsorted(firsts, (key, key + 1)))]:
            numbers = np.unravel_index(flat, self._counts)
            where = [axis.blocks[n][0] for axis, n in zip(self.layout.axes, numbers, strict=True)]
            if place < 0:
                yield where, -int(place)
                continue
            shape = [part.stop - part.start for part in where]
            with self._lock:
                self._file.seek(place)
                content = self._file.read(int(np.prod(shape)))
            yield where, np.frombuffer(content, np.uint8).reshape(shape)

    def _sorted(self, along: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Block and place of every tile, ordered by map, then by the block's number along one axis; and that order."""
        if self._ordered is None:
            table = np.array(self._index, dtype=np.int64).reshape(-1, 3)
            numbers = np.unravel_index(table[:, 1], self._counts)[along]
            keys = table[:, 0] * self._counts[along] + numbers
            order = keys.argsort(kind="stable")
            self._ordered = table[order, 1:], keys[order]
        return self._ordered

    def _put_back(self, slabs: Iterator[Steps]) -> Iterator[Steps]:
        """`slabs` on the source's grid, where labels are decided on another and put back by the nearest voxel."""
        axes, shape = self.prepared.axes, self.prepared.grid.shape
        sizes_DHW = self.prepared.zoomed or self.prepared.turned_shape
        nearest = []
        for source, turned in enumerate(axes.inverse().order):
            index = outer_nearest_index(sizes_DHW[turned], shape[source])
            nearest.append(sizes_DHW[turned] - 1 - index[::-1] if axes.flipped[turned] else index)
        i, j, k = nearest
        start = 0
        for slab in slabs:
            here = k[slice(*np.searchsorted(k, (start, start + slab.shape[2])))] - start
            start += slab.shape[2]
            if len(here):
                yield np.asfortranarray(slab.take(here, 2).take(j, 1).take(i, 0))


def _pieces(
    blocks: Sequence[tuple[slice, slice]], first: int, size: int, flipped: bool
) -> Iterator[tuple[int, int, int | None]]:
    """An axis cut into blocks, in ascending order: start, stop, and the block's number; None before and behind them.

    Parameters
    ----------
    blocks
        Blocks, as `volseg.inference.decide.Axis` has them.
    first
        Place where they begin on an axis of `size` voxels.
    flipped
        Whether the axis is wanted the other way round.
    """
    ends = [(first + out.start, first + out.stop, number) for number, (out, _) in enumerate(blocks)]
    before = [(start, min(start + BLOCK, first), None) for start in range(0, first, BLOCK)]
    last = ends[-1][1]
    behind = [(start, min(start + BLOCK, size), None) for start in range(last, size, BLOCK)]
    pieces = [*before, *ends, *behind]
    if flipped:
        pieces = [(size - stop, size - start, number) for start, stop, number in reversed(pieces)]
    return iter(pieces)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """The disk may be full."""
    try:
        yield
    except OSError as error:
        raise RefusalError(
            f"no room for probabilities in a temporary file in {tempfile.gettempdir()}: {error.strerror}", code="memory"
        ) from error
