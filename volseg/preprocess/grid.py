"""Which part of a scan a model sees, and on which grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from volseg.config import STORED_ORIENTATIONS, Recipe
from volseg.geometry import AxisMap, Geometry, Shape
from volseg.volume import Voxels

#: Slices are taken one by one where the largest spacing is more than this many times the smallest (as nnU-Net does).
ANISOTROPY = 3.0
#: Two spacings are one where they differ by less than this share: affines are stored in single precision.
SAME_SPACING = 2e-7

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A block of a grid: the index of its first voxel and its sizes, along D, H, W."""

    start: Shape
    shape: Shape

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The block, as an index into an array (D, H, W)."""
        d, h, w = (slice(first, first + size) for first, size in zip(self.start, self.shape, strict=True))
        return d, h, w


@dataclass(frozen=True)
class Part:
    """Which part of a scan's tensor is left, and of the grid that labels are decided on.

    Attributes
    ----------
    tensor, target
        The parts.
    whole_tensor, whole_target
        D, H, W of the wholes that they are parts of, which lie over the same box.
    """

    tensor: Box
    target: Box
    whole_tensor: Shape
    whole_target: Shape


def model_axes(geometry: Geometry, recipe: Recipe) -> AxisMap:
    """Map from a grid's i, j, k to the recipe's D, H, W."""
    if recipe.orientation in STORED_ORIENTATIONS:
        d, h, w = ("IJK".index(letter) for letter in recipe.orientation[-3:])
        return AxisMap((d, h, w), (False, False, False))
    return AxisMap.between(geometry.orientation, recipe.orientation)


def content_box(array_CDHW: Voxels) -> Box:
    """Smallest box that holds every voxel where a channel isn't 0; the whole grid where all are 0."""
    shape = array_CDHW.shape[1:]
    # A slice at a time along the axis that is furthest apart in memory: a mask of the whole scan isn't needed.
    used = [np.zeros(size, dtype=bool) for size in shape]
    outer = int(np.argmax(np.abs(array_CDHW.strides[1:])))
    first, second = (axis for axis in range(3) if axis != outer)
    for channel in array_CDHW:
        for index, plane in enumerate(np.moveaxis(channel, outer, 0)):
            content = plane != 0
            along = content.any(1)
            used[outer][index] |= along.any()
            used[first] |= along
            used[second] |= content.any(0)
    if not used[0].any():
        return Box((0, 0, 0), (shape[0], shape[1], shape[2]))
    ends = [(int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in used]
    (d, d_end), (h, h_end), (w, w_end) = ends
    return Box((d, h, w), (d_end - d, h_end - h, w_end - w))


def as_stated(spacing_mm: float) -> float:
    """The spacing that a file in single precision would state, where that is a short number.

    An oblique affine gives 0.9000001 for 0.9, DICOM 0.9 and NIfTI 0.89999998: half a voxel more or less would depend on
    how the scan is stored.
    """
    short = float(np.float32(f"{spacing_mm:.6g}"))
    return short if abs(short - spacing_mm) < SAME_SPACING * spacing_mm else spacing_mm


def resampled_size(size: int, spacing_mm: float, wanted_mm: float) -> int:
    """Voxels of `wanted_mm` over an axis of `size` voxels of `spacing_mm`; half a voxel goes to the even number."""
    return max(1, round(as_stated(spacing_mm) / wanted_mm * size))


def resampled_shape(shape: Shape, spacing_mm: Spacing, recipe: Recipe) -> Shape:
    """Sizes along D, H, W on the model's grid of a box of `shape` voxels at `spacing_mm`."""
    if recipe.spacing_mm is None:
        return shape
    d, h, w = (resampled_size(*axis) for axis in zip(shape, spacing_mm, recipe.spacing_mm, strict=True))
    return d, h, w


def separate_axis(
    current_mm: Sequence[float], new_mm: Sequence[float], rule: Literal["never", "auto", "always"]
) -> int | None:
    """Axis along which the nearest slice is taken when going from one spacing to another, or None.

    Parameters
    ----------
    current_mm, new_mm
        Spacings along D, H, W. The current ones choose first: there and back may differ in their axis.
    rule
        The recipe's ``resampling.separate_axis``.
    """
    if rule == "never":
        return None
    anisotropic = [mm for mm in (current_mm, new_mm) if max(mm) / min(mm) > ANISOTROPY * (1 + SAME_SPACING)]
    chosen = [current_mm] if rule == "always" else anisotropic
    if not chosen:
        return None
    largest = [axis for axis, mm in enumerate(chosen[0]) if mm > max(chosen[0]) * (1 - SAME_SPACING)]
    return largest[0] if len(largest) == 1 else None
