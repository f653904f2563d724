"""Voxel values to network input."""

from __future__ import annotations

import cc3d
import numpy as np
import torch
from torch import Tensor

from volseg.config import IntensityConfig
from volseg.volume import Voxels

#: Below this a channel counts as constant, and its z-score is 0 everywhere.
SMALLEST_STD = 1e-8
#: Voxels whose sums are taken at once, in double precision.
CHUNK = 2**22


def content_mask(array_CDHW: Voxels) -> Tensor:
    """(D, H, W) bool: where a channel isn't 0, and the holes that such voxels enclose (6 neighbours).

    Cropping to the content's box first changes nothing: beyond a box's face is the outside.
    """
    empty = np.ones([size + 2 for size in array_CDHW.shape[1:]], dtype=bool)
    inner = empty[1:-1, 1:-1, 1:-1]
    for channel in array_CDHW:
        inner &= channel == 0
    numbers = cc3d.connected_components(empty, connectivity=6)
    # The margin of one voxel joins everything that touches a face.
    return torch.from_numpy(numbers[1:-1, 1:-1, 1:-1] != numbers[0, 0, 0])


def normalise(values_DHW: Tensor, config: IntensityConfig, mask_DHW: Tensor | None = None) -> Tensor:
    """Clip, then shift and scale, one channel, in place.

    Parameters
    ----------
    values_DHW
        Voxel values, float32, contiguous; it is overwritten.
    config
        What the recipe chooses.
    mask_DHW
        The content, as `content_mask` gives it; needed where `config` has ``use_mask``.

    Returns
    -------
    Tensor
        `values_DHW`.
    """
    if config.clip_percentiles is not None:
        # torch.quantile sorts and is limited in size; the k-th value isn't.
        flat = values_DHW.flatten()
        low, high = (flat.kthvalue(1 + round(q * (flat.numel() - 1))).values for q in config.clip_percentiles)
        values_DHW.clamp_(float(low), float(high))
    if config.clip is not None:
        values_DHW.clamp_(*config.clip)
    match config.scheme:
        case "zscore":
            mask = mask_DHW if config.use_mask else None
            mean, std = _mean_and_std(values_DHW if mask is None else values_DHW[mask])
            values_DHW.sub_(mean).div_(max(std, SMALLEST_STD))
            if mask is not None:
                values_DHW.mul_(mask)
        case "fixed":
            values_DHW.sub_(config.mean).div_(config.std)
        case "minmax":
            values_DHW.sub_(values_DHW.min())
            values_DHW.div_(values_DHW.max().clamp(min=SMALLEST_STD))
        case "none":
            pass
    return values_DHW


def _mean_and_std(values: Tensor) -> tuple[float, float]:
    """Mean and population standard deviation, summed in double: a sum over 10^8 voxels loses digits in single."""
    flat = values.flatten()
    chunks = [flat[start : start + CHUNK] for start in range(0, len(flat), CHUNK)]
    count = max(values.numel(), 1)
    mean = sum(float(chunk.double().sum()) for chunk in chunks) / count
    squares = sum(float((chunk.double() - mean).square().sum()) for chunk in chunks)
    return mean, float((squares / count) ** 0.5)
