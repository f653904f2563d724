"""Each change of intensity against what it says it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from volseg.config import AugmentationConfig
from volseg.training.intensity import bias_field, blur, change_intensity, gamma, low_resolution

OFF: dict[str, Any] = {name: 0.0 for name in AugmentationConfig.model_fields if name.endswith("_probability")}
SHAPE = (12, 10, 14)


def noise_image(seed: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(2, 1, SHAPE).astype(np.float32))


def change(image: Tensor, seed: int = 0, **changes: Any) -> Tensor:
    config = AugmentationConfig.model_validate({**OFF, **changes})
    before = image.clone()
    changed = change_intensity(image, config, np.random.default_rng(seed))
    assert torch.equal(image, before)
    return changed


def test_a_probability_of_0_changes_nothing() -> None:
    assert torch.equal(change(noise_image()), noise_image())


def test_brightness_multiplies() -> None:
    image = noise_image()
    changed = change(image, brightness_probability=1.0, brightness_range=(1.25, 1.25))
    torch.testing.assert_close(changed, 1.25 * image)


def test_contrast_is_about_the_mean() -> None:
    image = noise_image()
    changed = change(image, contrast_probability=1.0, contrast_range=(0.5, 0.5))
    torch.testing.assert_close(changed, image.mean() + 0.5 * (image - image.mean()))


def test_gamma_keeps_mean_and_spread_and_bends_the_rest() -> None:
    image = noise_image()
    changed = change(image, gamma_probability=1.0, gamma_range=(1.5, 1.5))
    torch.testing.assert_close(changed.mean(), image.mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(changed.std(), image.std(), atol=1e-3, rtol=0)
    assert (changed - image).abs().max() > 0.05
    assert torch.equal(changed.flatten().argsort(), image.flatten().argsort())
    assert torch.equal(change(image, inverted_gamma_probability=1.0, gamma_range=(1.5, 1.5)), -gamma(-image, 1.5))


def test_gamma_by_hand() -> None:
    image = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 1, 3)
    # Places 0, 1/2, 1 become 0, 1/4, 1: mean 5/12, standard deviation sqrt(13/48).
    spread = (13 / 48) ** 0.5
    expected = [1 + (place - 5 / 12) / spread for place in (0, 0.25, 1)]
    assert gamma(image, 2.0).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_noise_is_gaussian_and_as_strong_as_it_may_be() -> None:
    image = torch.zeros(SHAPE)
    strengths = [float(change(image, seed, noise_probability=1.0, noise_std=0.1).std()) for seed in range(40)]
    assert max(strengths) < 0.105
    assert max(strengths) > 0.08
    assert min(strengths) < 0.03


@pytest.mark.parametrize("sigmas", [(0.5, 0.5, 0.5), (0.7, 1.5, 1.0)])
def test_blur_is_that_of_scipy_away_from_the_edges(sigmas: tuple[float, float, float]) -> None:
    image = noise_image()
    expected = ndimage.gaussian_filter(image.numpy().astype(float), sigmas, truncate=8)
    inner = (slice(4, -4), slice(4, -4), slice(4, -4))
    blurred = blur(image, np.array(sigmas))
    assert blurred.numpy()[inner] == pytest.approx(expected[inner], abs=2e-2)
    spike = torch.zeros((21, 23, 25))
    spike[10, 11, 12] = 1
    expected = ndimage.gaussian_filter(spike.numpy().astype(float), sigmas, truncate=8)
    assert blur(spike, np.array(sigmas)).numpy() == pytest.approx(expected, abs=1e-6)


def test_blur_leaves_one_value_as_it_is_up_to_the_edges() -> None:
    assert blur(torch.full(SHAPE, 3.0), np.array([0.5, 1.0, 2.0])).numpy() == pytest.approx(3)


def test_low_resolution_keeps_what_is_coarse_and_loses_what_is_fine() -> None:
    ramp = torch.arange(16.0)[:, None, None].expand(16, 16, 16).contiguous()
    assert low_resolution(ramp, 1.0).numpy() == pytest.approx(ramp.numpy(), abs=1e-5)
    assert float((low_resolution(ramp, 0.5) - ramp).abs().max()) <= 1.0
    stripes = torch.tensor([1.0, -1.0]).repeat(8)[:, None, None].expand(16, 16, 16).contiguous()
    coarse = low_resolution(stripes, 0.5)
    assert float(coarse.std()) < 0.05 * float(stripes.std())
    assert coarse.shape == stripes.shape
    assert change(noise_image(), low_resolution_probability=1.0).shape == SHAPE
    assert low_resolution(torch.ones((1, 4, 4)), 0.5).shape == (1, 4, 4)


def test_a_bias_field_is_smooth_within_its_factors_and_leaves_the_lowest_value() -> None:
    image = torch.ones((24, 20, 28))
    image[0, 0, 0] = -1.0
    fields = [(bias_field(image, (0.5, 2.0), np.random.default_rng(seed)) + 1) / 2 for seed in range(10)]
    for field in fields:
        assert float(field[0, 0, 0]) == 0
        inside = field[1:, 1:, 1:]
        assert float(inside.min()) >= 0.5
        assert float(inside.max()) <= 2.0
        assert float(inside.diff(dim=0).abs().max()) < 0.25
    assert max(float(field[1:, 1:, 1:].max() - field[1:, 1:, 1:].min()) for field in fields) > 0.5


def test_a_flat_channel_stays_finite() -> None:
    everything: dict[str, Any] = dict.fromkeys(OFF, 1.0)
    assert bool(torch.isfinite(change(torch.zeros(SHAPE), **everything)).all())
    assert bool(torch.isfinite(change(torch.full((1, 1, 1), 4.0), **everything)).all())
