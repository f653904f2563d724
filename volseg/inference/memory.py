"""How much memory a scan needs, said before it is segmented, and where its slab is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from volseg.config import Recipe
from volseg.errors import RefusalError
from volseg.inference.engines import Engine
from volseg.inference.layout import Layout
from volseg.inference.restorer import RESTORERS
from volseg.inference.sheet import bytes_of
from volseg.inference.sliding import passes_at_once
from volseg.inference.stream import Placement, slab_values
from volseg.machine import available_bytes, resident_bytes
from volseg.preprocess import model_shape
from volseg.preprocess.grid import model_axes
from volseg.volume import Volume

#: Beside what is counted here, torch's buffers and the allocator's gaps: with this much, plans lie 2 to 21 % above what
#: ``benchmarks/inference_memory.py`` measures.
LIBRARIES = 160_000_000
#: Bytes for each voxel of the scan while it is preprocessed: a channel in float32, and what clipping or resizing takes.
PREPARING = 12
#: Bytes for each voxel of a second stage's grid while a first stage's labels are put there: shares in float32.
PREPARING_LABELS = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes that segmenting one scan takes, by what they are for.

    Writing the result isn't part of it: formats differ.

    Attributes
    ----------
    process
        Bytes that the process held before it read the scan: Python, its libraries and the weights.
    scan, tensor, mask
        Bytes of the scan as it was read, of the network's input (of both stages of a cascade), and of the labels on the
        scan's grid.
    preparing
        Further bytes that preprocessing holds, before there is a slab.
    slab, restoring
        Bytes of the sums over the open rows, and of the rows that are being restored.
    network
        Bytes that the network holds for a window.
    placement
        Place of the slab. In a file it takes none of the memory.
    """

    process: int
    scan: int
    tensor: int
    mask: int
    preparing: int
    slab: int
    restoring: int
    network: int
    placement: Placement

    @property
    def total(self) -> int:
        """Largest amount that is held at once."""
        slab = 0 if self.placement.in_file else self.slab
        streaming = slab + self.restoring + self.network + self.mask
        return self.process + self.scan + self.tensor + max(self.preparing, streaming)

    def __str__(self) -> str:
        """One line: the total, and every part in MB."""
        slab = f"slab {_mb(self.slab)}" + (" in a file" if self.placement.in_file else "")
        parts = (
            ("process", self.process),
            ("scan", self.scan),
            ("tensor", self.tensor),
            ("preparing", self.preparing),
            ("restoring", self.restoring),
            ("network", self.network),
            ("mask", self.mask),
        )
        listed = ", ".join(f"{name} {_mb(size)}" for name, size in parts)
        return f"{_mb(self.total)} MB (in MB: {listed}, {slab}; preparing is over before there is a slab)"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f}"


def plan_memory(
    volume: Volume, recipe: Recipe, engines: Sequence[Engine], bound: int | None, stage1: Recipe | None = None
) -> Plan:
    """Choose where the slab of a scan is kept.

    In memory, with rows enough to restore some while the network works on others; else without these rows; else in a
    temporary file. A scan that is cropped takes less than the plan says.

    Parameters
    ----------
    volume
        The scan, in memory already.
    recipe, engines
        Recipe and engines of the model.
    bound
        Bytes that the process may hold. None: all that the machine has, which then only decides whether the slab is in
        memory or in a file.
    stage1
        Recipe of a cascade's first stage, where this is the second: its input is held until the end.

    Raises
    ------
    RefusalError
        Code ``memory``: even with a file, more than `bound` is needed.
    """
    held, available = resident_bytes(), available_bytes()
    for placement in (Placement(overlap=True), Placement(overlap=False), Placement(in_file=True, overlap=False)):
        plan = plan_for(volume, recipe, engines, placement, held, stage1)
        fits_machine = available is None or plan.total - held <= available
        if fits_machine and (bound is None or plan.total <= bound):
            return plan
    if bound is not None and plan.total > bound:
        raise RefusalError(f"--memory allows {_mb(bound)} MB, and this scan needs {plan}", code="memory")
    return plan


def plan_for(
    volume: Volume,
    recipe: Recipe,
    engines: Sequence[Engine],
    placement: Placement,
    held: int,
    stage1: Recipe | None = None,
) -> Plan:
    """What a scan takes with its slab in one place; `held` is what the process holds now, the scan included."""
    geometry = volume.geometry
    shape = model_shape(geometry, recipe)
    image_first = recipe.resampling.scheme == "image"
    decided = shape if image_first else geometry.turned(model_axes(geometry, recipe)).shape
    layout = Layout(shape, decided, recipe.window, recipe.tile_step)
    voxels = int(np.prod(geometry.shape, dtype=np.int64))
    plane = int(np.prod(layout.plane, dtype=np.int64)) * 4
    values = slab_values(engines, recipe.outputs)
    # While rows are restored, their logits; and their features beside these.
    restorers = RESTORERS if placement.overlap else 1
    restored = recipe.outputs if engines[0].head is None else recipe.outputs + values
    padded = int(np.prod(layout.padded, dtype=np.int64)) * len(recipe.channels) * 4
    preparing, decided_apart = voxels * PREPARING + padded // len(recipe.channels), 0
    if image_first:  # a channel in another order of memory, its values in double, and every channel on the model's grid
        preparing = volume.array.nbytes // volume.channels + 2 * padded // len(recipe.channels) + padded
        decided_apart = math.prod(shape)
    tensor = padded
    if stage1 is not None:  # labels are one more channel
        voxels_seen = int(np.prod(layout.padded, dtype=np.int64))
        tensor += 4 * (voxels_seen + len(stage1.channels) * math.prod(model_shape(geometry, stage1)))
        preparing += voxels_seen * PREPARING_LABELS
    window = int(np.prod(recipe.window, dtype=np.int64)) * 4
    # A constant window's values are kept, for those that follow.
    network = window * (passes_at_once(recipe.window) * engines[0].values_held + values)
    return Plan(
        process=max(0, held - volume.array.nbytes),
        scan=volume.array.nbytes,
        tensor=tensor,
        mask=_mask(voxels, decided_apart, recipe),
        preparing=preparing,
        slab=plane * values * layout.open_rows(overlap=placement.overlap),
        restoring=plane * restored * max(rows.stop - rows.start for rows in layout.needed) * restorers,
        network=round(network) + LIBRARIES,
        placement=placement,
    )


def _mask(voxels: int, decided_apart: int, recipe: Recipe) -> int:
    """Bytes of labels on the scan's grid and on the one that they are decided on; of regions also the layers."""
    label = 1 if max(label.value for label in recipe.labels) < 256 else 2
    if recipe.output == "softmax":
        return (voxels + decided_apart) * label
    return (voxels + decided_apart) * bytes_of(recipe.outputs) + voxels * label * (1 + recipe.outputs)
