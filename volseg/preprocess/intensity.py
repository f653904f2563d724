"""Voxel values to network input."""

from __future__ import annotations

import torch
from torch import Tensor

from volseg.config import IntensityConfig

#: Below this a channel counts as constant, and its z-score is 0 everywhere.
SMALLEST_STD = 1e-8


def normalise(array_CDHW: Tensor, config: IntensityConfig) -> Tensor:
    """Clip, then shift and scale, each channel by itself.

    Parameters
    ----------
    array_CDHW
        Voxel values, float32.
    config
        What the recipe chooses.
    """
    return torch.stack([_normalise_channel(channel, config) for channel in array_CDHW])


def _normalise_channel(channel: Tensor, config: IntensityConfig) -> Tensor:
    if config.clip_percentiles is not None:
        # torch.quantile sorts and is limited in size; the k-th value isn't.
        flat = channel.flatten()
        low, high = (flat.kthvalue(1 + round(q * (flat.numel() - 1))).values for q in config.clip_percentiles)
        channel = channel.clamp(float(low), float(high))
    if config.clip is not None:
        channel = channel.clamp(*config.clip)
    match config.scheme:
        case "zscore":
            # In double: a sum over 10^8 voxels loses digits in single.
            std, mean = torch.std_mean(channel.double(), correction=0)
            return ((channel - mean) / std.clamp(min=SMALLEST_STD)).float()
        case "fixed":
            return (channel - config.mean) / config.std
        case "none":
            return channel
