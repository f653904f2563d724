"""Augmentation keeps labels whole, keeps image and labels together, and follows from the generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import meta_obj
from torch import Tensor

from volseg.config import AugmentationConfig
from volseg.training.augment import Augmentation

OFF = {
    f"{name}_probability": 0.0 for name in ("rotation", "scaling", "noise", "blur", "brightness", "contrast", "gamma")
}
SHAPE = (12, 10, 14)


def patch() -> tuple[Tensor, Tensor]:
    """Labels 0, 1, 5 and an image that is ten times the label: wherever they part, it shows."""
    labels = torch.zeros((1, *SHAPE), dtype=torch.int32)
    labels[0, 2:7, 1:6, 3:9] = 1
    labels[0, 7:10, 4:9, 5:12] = 5
    return labels.float() * 10, labels


def run(seed: int = 0, image: Tensor | None = None, **changes: Any) -> tuple[Tensor, Tensor]:
    augment = Augmentation(AugmentationConfig.model_validate({**OFF, **changes}))
    made, labels = patch()
    return augment(made if image is None else image, labels, np.random.default_rng(seed))


def noise_image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(2, 1, (1, *SHAPE)).astype(np.float32))


EVERYTHING: dict[str, Any] = dict.fromkeys(OFF, 1.0) | {"rotation_degrees": 40.0, "flip_axes": (0, 1, 2)}


def test_a_probability_of_0_changes_nothing() -> None:
    image, labels = run()
    expected = patch()
    assert torch.equal(image, expected[0])
    assert torch.equal(labels, expected[1])


def test_labels_keep_their_values_and_both_their_types_and_shapes() -> None:
    for seed in range(5):
        image, labels = run(seed, **EVERYTHING)
        assert set(labels.unique().tolist()) <= {0, 1, 5}
        assert (labels.dtype, image.dtype) == (torch.int32, torch.float32)
        assert labels.shape == image.shape == (1, *SHAPE)
        assert not torch.equal(labels, patch()[1])


def test_the_same_generator_gives_the_same_patch_and_another_another() -> None:
    first, again, other = run(1, **EVERYTHING), run(1, **EVERYTHING), run(2, **EVERYTHING)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_patch_does_not_depend_on_those_before_it() -> None:
    augment = Augmentation(AugmentationConfig.model_validate({**OFF, **EVERYTHING}))
    image, labels = patch()
    augment(image, labels, np.random.default_rng(8))
    later = augment(image, labels, np.random.default_rng(1))
    assert torch.equal(later[0], run(1, **EVERYTHING)[0])


def test_the_input_is_left_alone() -> None:
    image, labels = patch()
    Augmentation(AugmentationConfig.model_validate({**OFF, **EVERYTHING}))(image, labels, np.random.default_rng(0))
    assert torch.equal(image, patch()[0])
    assert torch.equal(labels, patch()[1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_turns_both_along_its_own_axis_half_of_the_time(axis: int) -> None:
    image, labels = patch()
    flips = 0
    for seed in range(40):
        new_image, new_labels = run(seed, flip_axes=(axis,))
        flipped = torch.equal(new_labels, labels.flip(axis + 1))
        assert torch.equal(new_image, image.flip(axis + 1) if flipped else image)
        assert flipped or torch.equal(new_labels, labels)
        flips += flipped
    assert 10 <= flips <= 30


def test_rotation_moves_image_and_labels_together() -> None:
    image, labels = run(rotation_probability=1.0, rotation_degrees=30.0)
    assert not torch.equal(labels, patch()[1])
    # Inside a label the image holds ten times its value; only at edges, where it is interpolated, do they differ.
    assert ((image - 10 * labels).abs() < 1e-3).float().mean() > 0.75
    assert ((image - 10 * labels).abs() < 10).float().mean() > 0.9


@pytest.mark.parametrize(("factor", "voxels"), [(2.0, 8 * 8 * 8), (0.5, 2 * 2 * 2)])
def test_a_scaling_factor_above_1_makes_things_larger(factor: float, voxels: int) -> None:
    labels = torch.zeros((1, 16, 16, 16), dtype=torch.int32)
    labels[0, 6:10, 6:10, 6:10] = 1
    config = {**OFF, "scaling_probability": 1.0, "scaling_range": (factor, factor)}
    augment = Augmentation(AugmentationConfig.model_validate(config))
    _, scaled = augment(labels.float(), labels, np.random.default_rng(0))
    assert int((scaled == 1).sum()) == pytest.approx(voxels, rel=0.35)


def test_brightness_multiplies() -> None:
    image = noise_image()
    changed, _ = run(image=image, brightness_probability=1.0, brightness_range=(1.25, 1.25))
    torch.testing.assert_close(changed, 1.25 * image)


def test_contrast_is_about_the_mean() -> None:
    image = noise_image()
    changed, _ = run(image=image, contrast_probability=1.0, contrast_range=(0.5, 0.5))
    torch.testing.assert_close(changed, image.mean() + 0.5 * (image - image.mean()))


def test_gamma_keeps_mean_and_spread_and_bends_the_rest() -> None:
    image = noise_image()
    changed, _ = run(image=image, gamma_probability=1.0, gamma_range=(1.5, 1.5))
    torch.testing.assert_close(changed.mean(), image.mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(changed.std(), image.std(), atol=1e-3, rtol=0)
    assert (changed - image).abs().max() > 0.05
    assert torch.equal(changed.flatten().argsort(), image.flatten().argsort())


def test_noise_and_blur_touch_the_image_alone() -> None:
    image = noise_image()
    noisy, labels = run(image=image, noise_probability=1.0, noise_std=0.1)
    blurred, _ = run(image=image, blur_probability=1.0)
    assert 0 < float((noisy - image).std()) <= 0.11
    assert float(blurred.std()) < 0.7 * float(image.std())
    assert torch.equal(labels, patch()[1])


def test_monai_is_left_as_it_was() -> None:
    assert meta_obj.get_track_meta() is True
    run(**EVERYTHING)
    assert meta_obj.get_track_meta() is True
