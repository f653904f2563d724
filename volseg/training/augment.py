"""Random changes to training patches, by MONAI."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from monai import transforms
from monai.data import meta_obj
from torch import Tensor

from volseg.config import AugmentationConfig


class Augmentation:
    """What the recipe asks for, as one function of a patch and a seed.

    Parameters
    ----------
    config
        Probabilities and ranges.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        both, image = ["image", "label"], ["image"]
        angle = math.radians(config.rotation_degrees)
        spatial: dict[str, Any] = {"mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
        # The factor is the inverse of the zoom: MONAI's matrix maps output to input.
        zoom = tuple(sorted(1 / factor - 1 for factor in config.scaling_range))
        self.transforms: list[Any] = [
            transforms.RandAffined(both, prob=config.rotation_probability, rotate_range=(angle,) * 3, **spatial),
            transforms.RandAffined(both, prob=config.scaling_probability, scale_range=(zoom,) * 3, **spatial),
            transforms.RandGaussianNoised(image, prob=config.noise_probability, std=config.noise_std),
            transforms.RandGaussianSmoothd(image, *(config.blur_sigma,) * 3, prob=config.blur_probability),
            transforms.RandScaleIntensityd(
                image, factors=_about_one(config.brightness_range), prob=config.brightness_probability
            ),
            transforms.RandScaleIntensityFixedMeand(
                image, factors=_about_one(config.contrast_range), prob=config.contrast_probability
            ),
            transforms.RandAdjustContrastd(
                image, gamma=config.gamma_range, retain_stats=True, prob=config.gamma_probability
            ),
            *(transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in config.flip_axes),
        ]

    def __call__(self, image_CDHW: Tensor, labels_CDHW: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Changed image and labels; labels are turned with nearest-neighbour interpolation."""
        patch: Any = {"image": image_CDHW, "label": labels_CDHW.float()}
        with _without_metadata():
            for transform in self.transforms:
                transform.set_random_state(seed=int(rng.integers(2**31)))
                patch = transform(patch)
        return patch["image"].float(), patch["label"].to(labels_CDHW.dtype)


@contextmanager
def _without_metadata() -> Iterator[None]:
    """MONAI's tensors that follow their affine cost more than the arithmetic, and a patch has no use for them."""
    before = meta_obj.get_track_meta()
    meta_obj.set_track_meta(False)
    try:
        yield
    finally:
        meta_obj.set_track_meta(before)


def _about_one(factors: tuple[float, float]) -> tuple[float, float]:
    return factors[0] - 1, factors[1] - 1
