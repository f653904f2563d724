"""How near a voxel is to the surface of a label."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: A Gaussian is taken to be 0 this many sigmas away.
REACH = 3.0


def boundary_share(
    labels_BCDHW: Tensor, spacing_mm: Sequence[float], sigma_mm: float, ignored: int | None = None
) -> Tensor:
    """``exp(-d^2 / (2 sigma^2))`` for each voxel, d being its distance to the nearest voxel at a label's surface.

    After Ronneberger et al., arXiv:1505.04597, eq. 2, with the distance to one surface: organs aren't cells that must
    be kept apart. A voxel is at a surface where one of its six neighbours has another label.

    Parameters
    ----------
    labels_BCDHW
        (B, 1, D, H, W) label values.
    spacing_mm
        Spacing of the voxels, along D, H, W.
    sigma_mm
        Width of the Gaussian.
    ignored
        Value of voxels that nobody judged: where a label meets them is no surface.

    Returns
    -------
    Tensor
        (B, 1, D, H, W) float32; 0 beyond `REACH` sigmas.
    """
    surface = torch.zeros_like(labels_BCDHW, dtype=torch.bool)
    for axis in range(2, 5):
        size = labels_BCDHW.shape[axis]
        first, second = labels_BCDHW.narrow(axis, 0, size - 1), labels_BCDHW.narrow(axis, 1, size - 1)
        differ = first != second
        if ignored is not None:
            differ &= (first != ignored) & (second != ignored)
        surface.narrow(axis, 1, size - 1).logical_or_(differ)
        surface.narrow(axis, 0, size - 1).logical_or_(differ)
    # A Gaussian of a sum of squares is a product, so the largest one over all surface voxels is found axis by axis.
    share = surface.float()
    for axis, spacing in enumerate(spacing_mm, 2):
        size = share.shape[axis]
        before = share
        share = before.clone()
        for step in range(1, min(math.floor(REACH * sigma_mm / spacing), size - 1) + 1):
            fall = math.exp(-((step * spacing) ** 2) / (2 * sigma_mm**2))
            for out, into in ((step, 0), (0, step)):
                place = share.narrow(axis, out, size - step)
                torch.maximum(place, fall * before.narrow(axis, into, size - step), out=place)
    return torch.where(share < math.exp(-(REACH**2) / 2), 0.0, share)
