"""What else a scanner does to intensities: uneven brightness, a curve, ghosts and noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from volseg.config import SynthesisConfig
from volseg.training.warp import smooth_field


def normal(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Standard normal numbers, float32; torch makes them several times as fast as numpy."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return torch.randn(shape, generator=generator)


def biased(
    image_DHW: Tensor, spacing_mm: tuple[float, float, float], config: SynthesisConfig, rng: np.random.Generator
) -> Tensor:
    """Multiply by a smooth field whose logarithm is between minus and plus a strength that is drawn."""
    step = [config.bias_spacing_mm / spacing for spacing in spacing_mm]
    field = smooth_field(image_DHW.shape, step, 1, rng)[0]
    return image_DHW * (field * rng.uniform(0, config.bias_strength)).exp_()


def ranged(image_DHW: Tensor) -> Tensor:
    """An image from 0 to 1."""
    low, high = torch.aminmax(image_DHW)
    return (image_DHW - low) / (high - low).clamp(min=1e-6)


def ghosted(image_DHW: Tensor, config: SynthesisConfig, rng: np.random.Generator) -> Tensor:
    """Add fainter copies, displaced to either side along an axis and round its end, as k-space does it."""
    axis = int(rng.integers(3))
    step = int(rng.integers(image_DHW.shape[axis] // 8, image_DHW.shape[axis] // 2 + 1))
    copies = image_DHW.roll(step, axis) + image_DHW.roll(-step, axis)
    return image_DHW + rng.uniform(0, config.ghost_strength) / 2 * copies


def noisy(image_DHW: Tensor, config: SynthesisConfig, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise, or take the magnitude of the image with noise in both of its parts (Rician)."""
    std = rng.uniform(0, config.noise_std)
    first = image_DHW + std * normal(image_DHW.shape, rng)
    if rng.random() >= config.rician_probability:
        return first
    return (first**2 + (std * normal(image_DHW.shape, rng)) ** 2).sqrt_()


def distorted(
    image_DHW: Tensor, spacing_mm: tuple[float, float, float], config: SynthesisConfig, rng: np.random.Generator
) -> Tensor:
    """All of these that are drawn, in the order in which a scanner makes them; the result is about 0 to 1."""
    if rng.random() < config.bias_probability:
        image_DHW = biased(image_DHW, spacing_mm, config, rng)
    image_DHW = ranged(image_DHW) ** float(np.exp(config.gamma_strength * rng.standard_normal()))
    if rng.random() < config.ghost_probability:
        image_DHW = ghosted(image_DHW, config, rng)
    if rng.random() < config.noise_probability:
        image_DHW = noisy(image_DHW, config, rng)
    return image_DHW
