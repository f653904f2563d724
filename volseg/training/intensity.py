"""Random changes of one channel's values.

Each takes (D, H, W) float32 and gives as much back; what it draws from, and nothing else, is the generator.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.config import AugmentationConfig
from volseg.resample import nearest_index, resize
from volseg.training.warp import smooth_field

#: Points of a bias field's coarse grid along each axis of the patch.
BIAS_POINTS = 3


def change_intensity(channel_DHW: Tensor, config: AugmentationConfig, rng: np.random.Generator) -> Tensor:
    """All changes that the generator draws, in the order in which a scanner would make them."""
    if rng.random() < config.bias_field_probability:
        channel_DHW = bias_field(channel_DHW, config.bias_field_range, rng)
    if rng.random() < config.noise_probability:
        std = rng.uniform(0, config.noise_std)
        channel_DHW = channel_DHW + std * torch.from_numpy(rng.standard_normal(channel_DHW.shape, dtype=np.float32))
    if rng.random() < config.blur_probability:
        channel_DHW = blur(channel_DHW, rng.uniform(*config.blur_sigma, 3))
    if rng.random() < config.brightness_probability:
        channel_DHW = channel_DHW * rng.uniform(*config.brightness_range)
    if rng.random() < config.contrast_probability:
        mean = channel_DHW.mean()
        channel_DHW = mean + rng.uniform(*config.contrast_range) * (channel_DHW - mean)
    if rng.random() < config.low_resolution_probability:
        channel_DHW = low_resolution(channel_DHW, rng.uniform(*config.low_resolution_range))
    if rng.random() < config.inverted_gamma_probability:
        channel_DHW = -gamma(-channel_DHW, rng.uniform(*config.gamma_range))
    if rng.random() < config.gamma_probability:
        channel_DHW = gamma(channel_DHW, rng.uniform(*config.gamma_range))
    return channel_DHW


def bias_field(channel_DHW: Tensor, factors: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """Multiply what is above the lowest value by a smooth field between two factors.

    Normalised values have no zero that means no signal, so the lowest takes its place.
    """
    low, high = np.log(factors)
    spacing = [max(1.0, size / BIAS_POINTS) for size in channel_DHW.shape]
    field: Tensor = (smooth_field(channel_DHW.shape, spacing, 1, rng)[0] * ((high - low) / 2) + (high + low) / 2).exp()
    floor = channel_DHW.min()
    return field * (channel_DHW - floor) + floor


def blur(channel_DHW: Tensor, sigmas: npt.NDArray[np.float64]) -> Tensor:
    """Gaussian blur with a sigma, in voxels, along each axis; at an edge the weights inside are brought to 1."""
    for axis, sigma in enumerate(sigmas):
        index = torch.arange(channel_DHW.shape[axis], dtype=torch.float32)
        weights = torch.exp(-((index[:, None] - index) ** 2) / (2 * sigma**2))
        weights /= weights.sum(1, keepdim=True)
        channel_DHW = torch.tensordot(weights, channel_DHW, dims=([1], [axis])).movedim(0, axis)
    return channel_DHW.contiguous()


def low_resolution(channel_DHW: Tensor, share: float) -> Tensor:
    """What is left of a channel that was scanned with `share` times as many voxels along each axis."""
    d, h, w = channel_DHW.shape
    small = channel_DHW
    for axis, size in enumerate((d, h, w)):
        small = small.index_select(axis, nearest_index(size, max(1, round(size * share))))
    return resize(small[None], (d, h, w), order=3)[0]


def gamma(channel_DHW: Tensor, exponent: float) -> Tensor:
    """Bend values by a power of their place between the lowest and the highest; mean and spread stay."""
    low, high = torch.aminmax(channel_DHW)
    span = high - low
    if float(span) == 0:
        return channel_DHW
    mean, std = channel_DHW.mean(), channel_DHW.std()
    bent = ((channel_DHW - low) / span) ** exponent
    return (bent - bent.mean()) / bent.std() * std + mean
