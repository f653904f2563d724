"""Spacing, window and stages of the network from the sizes of the cases.

The rules are nnU-Net's, in our own words (Isensee et al., Nature Methods 18:203, 2021, online methods and supplementary
notes, "rule-based parameters"). All triples are along D, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from volseg.config import Spacing, Triple
from volseg.preprocess.grid import ANISOTROPY, as_stated

#: A stage isn't halved along an axis with fewer voxels than twice this.
SMALLEST_STAGE = 4
#: An axis is halved, and convolved across, only while its spacing is less than this many times the finest.
SIMILAR = 2.0


@dataclass(frozen=True)
class Topology:
    """Stages of the network: a stride and a kernel each, the first stride being 1x1x1, and the window that they fit."""

    window: Triple
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]

    @property
    def multiple(self) -> Triple:
        """What the window's sizes must be multiples of."""
        d, h, w = (math.prod(steps) for steps in zip(*self.strides, strict=True))
        return d, h, w


def target_spacing(spacings_mm: Sequence[Spacing], shapes: Sequence[Triple]) -> tuple[Spacing, int | None]:
    """Median of each axis; along a coarse axis the 10th percentile.

    An axis is coarse where its median spacing is more than `ANISOTROPY` times each of the others, and its median number
    of voxels less than a third of each of theirs. Its spacing doesn't go below that of the others.

    Returns
    -------
    tuple
        The spacing, and the coarse axis or None.
    """
    table = np.array(spacings_mm)
    spacing, sizes = np.median(table, axis=0), np.median(np.array(shapes), axis=0)
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != worst]
    is_coarse = bool(spacing[worst] > ANISOTROPY * spacing[others].max())
    has_few = bool(sizes[worst] * ANISOTROPY < sizes[others].min())
    coarse = worst if is_coarse and has_few else None
    if coarse is not None:
        spacing[coarse] = max(np.percentile(table[:, coarse], 10), spacing[others].max())
    d, h, w = (round(as_stated(float(mm)), 6) for mm in spacing)
    return (d, h, w), coarse


def topology(window: Triple, spacing_mm: Spacing) -> Topology:
    """Halve each axis while it is long enough, the coarse ones last; then round the window up to what that needs.

    An axis is halved from stage to stage while it has at least twice `SMALLEST_STAGE` voxels and its spacing, which
    doubles each time, is less than `SIMILAR` times that of the finest axis that can be halved. Convolutions leave out
    an axis (kernel size 1) until its spacing is less than `SIMILAR` times the finest.
    """
    size, spacing, kernel = list(window), list(spacing_mm), [1, 1, 1]
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = []
    while True:
        kernel = [3 if k == 3 or mm < SIMILAR * min(spacing) else 1 for k, mm in zip(kernel, spacing, strict=True)]
        kernels.append((kernel[0], kernel[1], kernel[2]))
        long = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST_STAGE]
        halved = [axis for axis in long if spacing[axis] < SIMILAR * min(spacing[axis] for axis in long)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST_STAGE):
            break
        step = [2 if axis in halved else 1 for axis in range(3)]
        strides.append((step[0], step[1], step[2]))
        size = [math.ceil(n / k) for n, k in zip(size, step, strict=True)]
        spacing = [mm * k for mm, k in zip(spacing, step, strict=True)]
    found = Topology(window, tuple(strides), tuple(kernels))
    d, h, w = (math.ceil(n / k) * k for n, k in zip(window, found.multiple, strict=True))
    return Topology((d, h, w), found.strides, found.kernels)


def largest_window(median: Triple, spacing_mm: Spacing, voxels: int) -> Triple:
    """A block of about `voxels` voxels that is as long in mm along every axis, and nowhere longer than the median case.

    What an axis has too little for, the others don't get.
    """
    side_mm = (voxels * math.prod(spacing_mm)) ** (1 / 3)
    d, h, w = (min(size, max(1, round(side_mm / mm))) for size, mm in zip(median, spacing_mm, strict=True))
    return d, h, w


def smaller(found: Topology, median: Triple, spacing_mm: Spacing) -> Topology | None:
    """The next smaller window: one step less along the axis that sees most of the median case; None at the end."""
    shares = [n / size for n, size in zip(found.window, median, strict=True)]
    for axis in sorted(range(3), key=lambda axis: -shares[axis]):
        shorter = found.window[axis] - found.multiple[axis]
        if shorter >= 2 * SMALLEST_STAGE:
            window = [*found.window]
            window[axis] = shorter
            after = topology((window[0], window[1], window[2]), spacing_mm)
            # Other stages may need other multiples, and be rounded up past what there was.
            if math.prod(after.window) < math.prod(found.window):
                return after
    return None


def coarser(spacing_mm: Spacing) -> Spacing:
    """A little coarser: by 3 % along the axes that are less than half as coarse as the coarsest, or else along all."""
    fine = [max(spacing_mm) / mm > SIMILAR for mm in spacing_mm]
    d, h, w = (mm * 1.03 if is_fine or not any(fine) else mm for mm, is_fine in zip(spacing_mm, fine, strict=True))
    return d, h, w
