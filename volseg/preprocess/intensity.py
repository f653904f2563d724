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
CHUNK = 2**18


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
        The recipe's choices.
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
            mean, std = _mean_and_std(values_DHW, mask)
            values_DHW.sub_(mean).div_(max(std, SMALLEST_STD))
            if mask is not None:
                values_DHW.masked_fill_(~mask, 0)
        case "fixed":
            values_DHW.sub_(config.mean).div_(config.std)
        case "minmax":
            values_DHW.sub_(values_DHW.min())
            values_DHW.div_(values_DHW.max().clamp(min=SMALLEST_STD))
        case "none":
            pass
    return values_DHW


def _mean_and_std(values_DHW: Tensor, mask_DHW: Tensor | None) -> tuple[float, float]:
    """Mean and population standard deviation, of the mask alone where there is one; 0 and 0 of nothing.

    Summed in double, since a sum over 10^8 voxels loses digits in single, and about a value near the mean, since a
    difference of large squares does too.
    """
    flat, inside = values_DHW.flatten(), None if mask_DHW is None else mask_DHW.flatten()
    count, shift, total, squares = 0, 0.0, 0.0, 0.0
    for start in range(0, len(flat), CHUNK):
        chunk = flat[start : start + CHUNK]
        if inside is not None:
            chunk = chunk[inside[start : start + CHUNK]]
        if not len(chunk):
            continue
        values = chunk.double()
        if not count:
            shift = float(values.mean())
        values -= shift
        count += len(values)
        total += float(values.sum())
        squares += float(values @ values)
    mean = total / max(count, 1)
    return shift + mean, max(squares / max(count, 1) - mean**2, 0.0) ** 0.5
