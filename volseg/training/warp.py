"""Rotation, scaling, flips and elastic deformation of a window, as one resampling of its case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from volseg.config import AugmentationConfig

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Warp:
    """A map from a window's voxels to those of its case.

    Attributes
    ----------
    matrix
        (3, 3) matrix that takes a voxel's offset from the window's centre to the offset in the case.
    flips
        Axes of the window that are flipped first.
    bend_KDHW
        (3, D, H, W) further displacement in the case, in voxels along D, H, W; None: no deformation.
    """

    matrix: Matrix
    flips: tuple[int, ...] = ()
    bend_KDHW: Tensor | None = None

    @property
    def moves(self) -> bool:
        """Whether voxels come to lie between others."""
        return self.bend_KDHW is not None or not np.array_equal(self.matrix, np.eye(3))


def rotation(degrees: Sequence[float]) -> Matrix:
    """Rotation about the first axis, then the second, then the third."""
    result = np.eye(3)
    for axis, angle in enumerate(degrees):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turn = np.eye(3)
        first, second = (other for other in range(3) if other != axis)
        turn[[first, first, second, second], [first, second, first, second]] = cosine, -sine, sine, cosine
        result = turn @ result
    return result


def bspline_basis(size: int, spacing: float) -> Tensor:
    """(size, points) cubic B-spline that continues values `spacing` voxels apart over `size` voxels; rows sum to 1."""
    at = np.arange(size) / spacing
    low, share = np.floor(at).astype(np.intp), at % 1
    rest = 1 - share
    basis = np.zeros((size, int(low[-1]) + 4))
    weights = (rest**3, 4 - 6 * share**2 + 3 * share**3, 4 - 6 * rest**2 + 3 * rest**3, share**3)
    for step, weight in enumerate(weights):
        basis[np.arange(size), low + step] = weight / 6
    return torch.from_numpy(basis.astype(np.float32))


def smooth_field(shape: Sequence[int], spacing: Sequence[float], values: int, rng: np.random.Generator) -> Tensor:
    """(values, D, H, W) float32 smooth random numbers between -1 and 1, free of each other `spacing` voxels apart.

    A cubic B-spline between uniform random numbers on a coarse grid (Rueckert et al., doi:10.1109/42.796284, eq. 1).
    """
    bases = [bspline_basis(size, step) for size, step in zip(shape, spacing, strict=True)]
    points = [basis.shape[1] for basis in bases]
    field = torch.from_numpy(rng.uniform(-1, 1, (values, *points)).astype(np.float32))
    for axis, basis in enumerate(bases, 1):
        field = torch.tensordot(basis, field, dims=([1], [axis])).movedim(0, axis)
    return field


def draw_warp(
    config: AugmentationConfig, window: Sequence[int], spacing_mm: Sequence[float], rng: np.random.Generator
) -> Warp:
    """Random warp of a window.

    Rotation and scaling are of millimetres, and nothing folds: displacements stay below 0.4 of the distance of the
    grid's points (Choi & Lee, doi:10.1006/gmod.1999.0518, theorem 1, for three dimensions).
    """
    to_mm = np.diag(spacing_mm)
    matrix = np.eye(3)
    if rng.random() < config.rotation_probability:
        limits = np.array(config.rotation_degrees)
        matrix = rotation(rng.uniform(-limits, limits).tolist()) @ matrix
    if rng.random() < config.scaling_probability:
        low, high = np.log(config.scaling_range)
        factors = np.exp(rng.uniform(low, high, 1 if config.scaling_together else 3))
        # What becomes twice as large is sought half as far from the centre.
        matrix = matrix @ np.diag(np.broadcast_to(1 / factors, 3))
    matrix = np.linalg.inv(to_mm) @ matrix @ to_mm
    flips = tuple(axis for axis in config.flip_axes if rng.random() < 0.5)
    bend = None
    if rng.random() < config.elastic_probability:
        step = [config.elastic_spacing_mm / spacing for spacing in spacing_mm]
        bend = smooth_field(window, step, 3, rng)
        for displacement, spacing in zip(bend, spacing_mm, strict=True):
            displacement *= config.elastic_displacement_mm / spacing
    # Where nothing was drawn it is the identity to the last bit, whatever the spacing.
    return Warp(np.round(matrix, 12) + 0.0, flips, bend)


def cut(array_CDHW: Tensor, start: Sequence[int], window: Sequence[int]) -> Tensor:
    """Copy of a window, 0 where it reaches beyond the array."""
    result = array_CDHW.new_zeros((array_CDHW.shape[0], *window))
    out, into = [slice(None)], [slice(None)]
    for first, length, size in zip(start, window, array_CDHW.shape[1:], strict=True):
        out.append(slice(max(0, -first), max(0, min(length, size - first))))
        into.append(slice(max(0, first), max(0, min(size, first + length))))
    result[tuple(out)] = array_CDHW[tuple(into)]
    return result


def coordinates(warp: Warp, start: Sequence[int], window: Sequence[int]) -> Tensor:
    """(D, H, W, 3) float32: where in the case, in voxels, each voxel of the window comes from."""
    half = [(length - 1) / 2 for length in window]
    offsets = [torch.arange(length, dtype=torch.float32) - middle for length, middle in zip(window, half, strict=True)]
    for axis in warp.flips:
        offsets[axis] = -offsets[axis]
    result = torch.empty((*window, 3))
    for axis, row in enumerate(torch.from_numpy(warp.matrix).float()):
        d, h, w = (number * offset for number, offset in zip(row, offsets, strict=True))
        at = result[..., axis]
        torch.add((d + start[axis] + half[axis])[:, None, None] + h[:, None], w, out=at)
        if warp.bend_KDHW is not None:
            at += warp.bend_KDHW[axis]
    return result


def warped(
    image_CDHW: Tensor, labels_DHW: Tensor, start: Sequence[int], window: Sequence[int], warp: Warp
) -> tuple[Tensor, Tensor]:
    """Window of an image, interpolated linearly, and of its labels, each voxel that of the nearest; 0 outside.

    Returns
    -------
    tuple
        (C, D, H, W) float32 and (1, D, H, W) of the labels' type.
    """
    if not warp.moves:
        axes = [axis + 1 for axis in warp.flips]
        image, labels = cut(image_CDHW, start, window), cut(labels_DHW[None], start, window)
        return (image.flip(axes), labels.flip(axes)) if axes else (image, labels)
    at = coordinates(warp, start, window)
    corners = torch.stack([at.amin((0, 1, 2)), at.amax((0, 1, 2))])
    size = torch.tensor(labels_DHW.shape)
    # Only what the window sees: labels of a whole scan would be copied to floating-point numbers otherwise.
    low = torch.minimum(corners[0].floor().long().clamp(min=0), size - 1)
    high = torch.maximum(torch.minimum(corners[1].ceil().long() + 1, size), low + 1)
    part = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    # grid_sample counts from -1 to 1 between the outer edges, and names the last axis first.
    at = (((at - low) * 2 + 1) / (high - low) - 1).flip(-1)[None]
    image = functional.grid_sample(image_CDHW[(slice(None), *part)][None], at, "bilinear", "zeros", False)
    labels = functional.grid_sample(labels_DHW[part][None, None].float(), at, "nearest", "zeros", False)
    return image[0], labels[0].to(labels_DHW.dtype)
