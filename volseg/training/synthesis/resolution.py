"""What a scanner's voxels leave of an image: blur and thick slices, as one matrix an axis."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from volseg.config import SynthesisConfig

#: Width of a slice's profile: its standard deviation as a share of the slice's thickness, at half height as wide as it.
PROFILE = 1 / 2.355


def gaussian_rows(at: Tensor, size: int, sigma: float) -> Tensor:
    """(len(at), size) Gaussian weights about the places `at`, in voxels; rows sum to 1."""
    distance = at[:, None] - torch.arange(size, dtype=torch.float32)
    weights = torch.exp(-(distance**2) / (2 * max(sigma, 1e-3) ** 2))
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)


def linear_rows(at: Tensor, size: int) -> Tensor:
    """(len(at), size) weights of linear interpolation at the places `at`, in voxels, the ends' values beyond them."""
    distance = (at.clamp(0, size - 1)[:, None] - torch.arange(size, dtype=torch.float32)).abs()
    return (1 - distance).clamp(min=0)


def thick_slices(size: int, thickness: float, phase: float) -> Tensor:
    """(size, size) matrix: slices of a thickness in voxels, one behind the other, and voxels brought back between them.

    Parameters
    ----------
    size
        Voxels of the axis.
    thickness
        Thickness of a slice, at least 1.
    phase
        Place of the first slice's centre, as a share of its thickness, from 0 to 1.
    """
    count = max(1, int((size - phase * thickness) // thickness) + 1)
    centres = phase * thickness + torch.arange(count) * thickness
    down = gaussian_rows(centres, size, PROFILE * thickness)
    up = linear_rows((torch.arange(size, dtype=torch.float32) - phase * thickness) / thickness, count)
    return up @ down


def along(matrix: Tensor, image_DHW: Tensor, axis: int) -> Tensor:
    """Apply a matrix along an axis."""
    moved: Tensor = torch.tensordot(matrix, image_DHW, dims=([1], [axis])).movedim(0, axis)
    return moved


def scanned(
    image_DHW: Tensor, spacing_mm: tuple[float, float, float], config: SynthesisConfig, rng: np.random.Generator
) -> Tensor:
    """Blur an image along each axis, and cut it into thick slices where that is drawn."""
    sigmas = rng.uniform(*config.blur_mm, 3)
    thick = int(rng.integers(3)) if rng.random() < config.thick_probability else None
    thickness_mm, phase = rng.uniform(*config.thickness_mm), rng.random()
    for axis, (size, spacing, sigma) in enumerate(zip(image_DHW.shape, spacing_mm, sigmas, strict=True)):
        if axis == thick and thickness_mm > spacing:
            matrix = thick_slices(size, thickness_mm / spacing, phase)
        else:
            matrix = gaussian_rows(torch.arange(size, dtype=torch.float32), size, sigma / spacing)
        image_DHW = along(matrix, image_DHW, axis)
    return image_DHW.contiguous()
