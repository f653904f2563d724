"""How overlapping windows are weighted."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from volseg.geometry import Shape

#: Standard deviation of the Gaussian, as a share of the window (as nnU-Net has it).
SIGMA = 1 / 8


@lru_cache(maxsize=8)
def gaussian_weight(window: Shape) -> Tensor:
    """(D, H, W) float32 weight of each voxel of a window: a Gaussian about its centre, 1 there, never 0."""
    weight = torch.ones(())
    for size in window:
        offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        axis = torch.exp(-0.5 * (offset / (size * SIGMA)) ** 2)
        weight = weight[..., None] * axis
    return (weight / weight.max()).float()
