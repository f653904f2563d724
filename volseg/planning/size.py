"""Spacing, window, width and batch that a time and a memory allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from volseg.config import NetworkConfig, Spacing, Triple
from volseg.planning.cost import Cost, Machine, cost
from volseg.planning.shapes import Topology, coarser, largest_window, smaller, target_spacing, topology

#: Steps that a run of `MINUTES` should hold. With more time both the steps and what a step computes grow as its root
#: (Hoffmann et al., arXiv:2203.15556: parameters and data in equal measure). The hippocampus' Dice still rises from
#: 800 to 1600 and to 3100 steps, and 24 features instead of 16 add nothing to 800 that take twice as long.
STEPS, MINUTES = 3000, 30.0
#: Largest window, nnU-Net's usual one; and the voxels that a window of each width isn't made smaller than, 0: none is.
LARGEST = 128**3
WIDTHS = ((32, 0), (24, 0), (16, 64**3), (8, 32**3))
#: Deep stages have no more than this many times the first stage's features, nnU-Net's 320 of 32.
WIDEST = 10
#: Patches a step are no more than this share of all voxels.
MOST_OF_DATASET = 0.05
#: The spacing is made coarser until the window holds this share of the median case, ...
LEAST_SEEN = 1 / 8
#: ... but no further than that the smallest label has so many voxels in its median case.
FEWEST_VOXELS = 200.0
#: Bytes of a prepared case: of a voxel on the model's grid beside 4 a channel, on the scan's own grid, of a label.
PER_VOXEL, PER_STORED, PER_LABELLED = 4, 2, 12


@dataclass(frozen=True)
class Needs:
    """What sizes depend on. Triples are along D, H, W.

    Attributes
    ----------
    spacings_mm, shapes
        Spacing and shape of each case, of the part that the network sees.
    stored_voxels
        Voxels of all cases' own grids.
    labelled_ml
        Volume of all labels of all cases.
    smallest_ml
        Median volume of the smallest label.
    channels, outputs
        Numbers of the network's channels and outputs.
    """

    spacings_mm: Sequence[Spacing]
    shapes: Sequence[Triple]
    stored_voxels: int
    labelled_ml: float
    smallest_ml: float
    channels: int
    outputs: int

    def at(self, spacing_mm: Spacing) -> list[Triple]:
        """Shapes of the cases at a spacing."""
        rows = np.array(self.shapes) * np.array(self.spacings_mm) / np.array(spacing_mm)
        return [(d, h, w) for d, h, w in np.maximum(np.rint(rows), 1).astype(int).tolist()]


@dataclass(frozen=True)
class Limits:
    """What a plan must fit into."""

    machine: Machine
    minutes: float
    memory: int

    @property
    def steps(self) -> float:
        """Steps that the minutes should hold."""
        return STEPS * math.sqrt(self.minutes / MINUTES)

    @property
    def step_s(self) -> float:
        """Longest step."""
        return self.minutes * 60 / self.steps


@dataclass(frozen=True)
class Size:
    """What was chosen.

    Attributes
    ----------
    spacing_mm
        Spacing of the model's grid.
    native_mm
        Spacing of the cases: `spacing_mm` before it was made coarser.
    coarse_axis
        Axis of thick slices, or None.
    median
        Median shape of the cases at this spacing.
    topology, features, batch
        Stages and widths of the network, and patches a step.
    cost
        Cost of a window.
    cases_bytes
        Bytes of all prepared cases, which training keeps on disk and maps into memory.
    fits
        Whether a step keeps to both limits.
    """

    spacing_mm: Spacing
    native_mm: Spacing
    coarse_axis: int | None
    median: Triple
    topology: Topology
    features: tuple[int, ...]
    batch: int
    cost: Cost
    cases_bytes: int
    fits: bool

    @property
    def share(self) -> float:
        """Share of the median case that a window holds."""
        return math.prod(min(n, m) / m for n, m in zip(self.topology.window, self.median, strict=True))

    def step_s(self, machine: Machine) -> float:
        """Seconds of a step, as counted."""
        return self.cost.step_s(self.batch, machine)


def choose_size(needs: Needs, limits: Limits) -> Size:
    """The widest network with the largest window whose steps fit, at a spacing at which the window sees enough."""
    native, coarse_axis = target_spacing(needs.spacings_mm, needs.shapes)
    spacing = native
    size = _at(needs, limits, spacing)
    while size.share < LEAST_SEEN and needs.smallest_ml * 1000 / math.prod(coarser(spacing)) >= FEWEST_VOXELS:
        spacing = coarser(spacing)
        size = _at(needs, limits, spacing)
    if spacing != native:
        d, h, w = (round(mm, 2) for mm in spacing)
        size = _at(needs, limits, (d, h, w))
    return replace(size, native_mm=native, coarse_axis=coarse_axis)


def _at(needs: Needs, limits: Limits, spacing_mm: Spacing) -> Size:
    """The size at one spacing."""
    shapes = needs.at(spacing_mm)
    d, h, w = (int(n) for n in np.median(np.array(shapes), axis=0))
    median = (d, h, w)
    voxels = sum(math.prod(shape) for shape in shapes)
    labelled = needs.labelled_ml * 1000 / math.prod(spacing_mm)
    per_voxel = PER_VOXEL + 4 * needs.channels
    held = round(voxels * per_voxel + needs.stored_voxels * PER_STORED + labelled * PER_LABELLED)

    def sized(found: Topology, base: int, batch: int) -> Size:
        features = tuple(min(base * 2**stage, base * WIDEST) for stage in range(len(found.strides)))
        network = NetworkConfig(features=features, strides=found.strides, kernels=found.kernels)
        counted = cost(network, needs.channels, needs.outputs, found.window)
        in_time = counted.step_s(batch, limits.machine) <= limits.step_s
        fits = in_time and counted.step_bytes(batch) <= limits.memory
        return Size(spacing_mm, spacing_mm, None, median, found, features, batch, counted, held, fits)

    size = _widest(sized, median, spacing_mm)
    most = MOST_OF_DATASET * voxels / math.prod(size.topology.window)
    while size.fits and size.batch + 1 <= most:
        more = sized(size.topology, size.features[0], size.batch + 1)
        if not more.fits:
            break
        size = more
    return size


def _widest(sized: Callable[[Topology, int, int], Size], median: Triple, spacing_mm: Spacing) -> Size:
    """The first of `WIDTHS` that fits, its window made smaller as far as it may be."""
    largest = topology(largest_window(median, spacing_mm, LARGEST), spacing_mm)
    for base, floor in WIDTHS:
        found: Topology | None = largest
        while found is not None:
            size = sized(found, base, 1)
            found = smaller(found, median, spacing_mm)
            if size.fits or not floor or found is None or math.prod(found.window) < floor:
                break
        if size.fits:
            break
    return size
