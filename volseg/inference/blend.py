"""How overlapping windows are weighted: a Gaussian, which is a product of one factor an axis."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from volseg.geometry import Shape
from volseg.inference.windows import axis_starts

#: Standard deviation of the Gaussian, as a share of the window (as nnU-Net has it).
SIGMA = 1 / 8


def axis_weight(size: int) -> Tensor:
    """(size,) float64 factor of the weight along one axis: 1 at voxel ``size // 2`` (nnU-Net's centre), never 0."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    return torch.exp(-0.5 * (offset / (size * SIGMA)) ** 2)


@lru_cache(maxsize=8)
def gaussian_weight(window: Shape) -> Tensor:
    """(D, H, W) float32 weight of each voxel of a window."""
    d, h, w = (axis_weight(size) for size in window)
    return (d[:, None, None] * h[:, None] * w).float()


def weight_sum(size: int, window: int, step: float) -> Tensor:
    """(size,) float64 sum of one axis' factors over all windows along it.

    Windows stand on a product of the axes' starts, so that the sum of all weights at a voxel is the product of the
    three axes' sums: no array of the scan's size is needed for them.
    """
    total = torch.zeros(size, dtype=torch.float64)
    for start in axis_starts(size, window, step):
        total[start : start + window] += axis_weight(window)
    return total
