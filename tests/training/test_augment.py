"""Augmentation keeps labels whole, keeps image and labels together, and follows from the generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from tests.helpers.tiny import tiny_recipe
from tests.helpers.training_cases import as_case
from volseg.config import AugmentationConfig
from volseg.errors import RecipeError
from volseg.training.augment import Augmentation
from volseg.training.sampling import Place
from volseg.training.warp import Warp, coordinates, draw_warp, rotation, smooth_field, warped

OFF: dict[str, Any] = {name: 0.0 for name in AugmentationConfig.model_fields if name.endswith("_probability")}
SHAPE = (12, 10, 14)
EVERYTHING: dict[str, Any] = dict.fromkeys(OFF, 1.0) | {
    "rotation_degrees": 40.0,
    "flip_axes": [0, 1, 2],
    "elastic_spacing_mm": 8.0,
    "elastic_displacement_mm": 3.0,
}


def blocks() -> Tensor:
    labels = torch.zeros(SHAPE, dtype=torch.int32)
    labels[2:7, 1:6, 3:9] = 1
    labels[7:10, 4:9, 5:12] = 2
    return labels


def noise_image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(2, 1, SHAPE).astype(np.float32))


def recipe_of(changes: dict[str, Any], **more: Any) -> Any:
    return tiny_recipe(
        window=SHAPE,
        mirroring={"axes": []},
        training={"augmentation": {**OFF, "flip_axes": [], **changes}},
        **more,
    )


def run(
    seed: int = 0, image: Tensor | None = None, labels: Tensor | None = None, **changes: Any
) -> tuple[Tensor, Tensor]:
    """A whole case as one patch; its image is ten times its labels unless given: wherever they part, it shows."""
    case = as_case(blocks() if labels is None else labels, image)
    return Augmentation(recipe_of(changes))(Place(case, (0, 0, 0)), np.random.default_rng(seed))


def test_a_probability_of_0_changes_nothing() -> None:
    image, labels = run()
    assert torch.equal(labels[0], blocks())
    assert torch.equal(image, 10.0 * labels)


def test_labels_keep_their_values_and_both_their_types_and_shapes() -> None:
    for seed in range(5):
        image, labels = run(seed, **EVERYTHING)
        assert set(labels.unique().tolist()) <= {0, 1, 2}
        assert (labels.dtype, image.dtype) == (torch.int32, torch.float32)
        assert labels.shape == image.shape == (1, *SHAPE)
        assert not torch.equal(labels[0], blocks())
        assert bool(torch.isfinite(image).all())


def test_the_same_generator_gives_the_same_patch_and_another_another() -> None:
    first, again, other = run(1, **EVERYTHING), run(1, **EVERYTHING), run(2, **EVERYTHING)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_case_is_left_alone_and_a_patch_does_not_depend_on_those_before_it() -> None:
    augment = Augmentation(recipe_of(EVERYTHING))
    case = as_case(blocks())
    augment(Place(case, (0, 0, 0)), np.random.default_rng(8))
    assert torch.equal(case.labels_DHW, blocks())
    assert torch.equal(case.prepared.tensor_CDHW[0], 10.0 * blocks())
    later = augment(Place(case, (0, 0, 0)), np.random.default_rng(1))
    assert torch.equal(later[0], run(1, **EVERYTHING)[0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_turns_both_along_its_own_axis_half_of_the_time(axis: int) -> None:
    flips = 0
    for seed in range(40):
        image, labels = run(seed, flip_axes=[axis])
        flipped = torch.equal(labels[0], blocks().flip(axis))
        assert torch.equal(image, 10.0 * labels)
        assert flipped or torch.equal(labels[0], blocks())
        flips += flipped
    assert 10 <= flips <= 30


@pytest.mark.parametrize(("orientation", "side"), [("RAS", 0), ("SAL", 2)])
@pytest.mark.parametrize("turned", [0.0, 1.0])
def test_a_flip_from_left_to_right_swaps_the_labels_of_a_pair(orientation: str, side: int, turned: float) -> None:
    """A scan's mirror image has its left kidney where its right one was, and it is a right kidney."""
    changes = {
        "flip_axes": [0, 1, 2],
        "swapped_labels": [[1, 2]],
        "rotation_probability": turned,
        "rotation_degrees": 5.0,
    }
    recipe, plain = (
        recipe_of(given, orientation=orientation) for given in (changes, {**changes, "swapped_labels": []})
    )
    seen = set()
    for seed in range(30):
        place = Place(as_case(blocks()), (0, 0, 0))
        image, labels = Augmentation(recipe)(place, np.random.default_rng(seed))
        same_image, before = Augmentation(plain)(place, np.random.default_rng(seed))
        warp = draw_warp(recipe.training.augmentation, SHAPE, (1, 1, 1), np.random.default_rng(seed))
        expected = torch.tensor([0, 2, 1], dtype=torch.int32)[before.long()] if side in warp.flips else before
        assert torch.equal(labels, expected)
        assert torch.equal(image, same_image)
        seen.add(side in warp.flips)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("changes", "more", "problem"),
    [
        ({"swapped_labels": [[1, 3]]}, {}, r"swapped_labels names the values \[3\]"),
        ({"swapped_labels": [[1, 2], [2, 1]]}, {}, "names a value twice"),
        ({"swapped_labels": [[1, 2]]}, {"orientation": "stored-KJI"}, "says where left is, not stored-KJI"),
        (
            {"swapped_labels": [[1, 2]], "flip_axes": [0]},
            {"mirroring": {"axes": [0]}},
            "mirroring along axis 0 would mix up",
        ),
        ({"elastic_displacement_mm": 5.0, "elastic_spacing_mm": 12.0}, {}, "tissue would fold"),
    ],
)
def test_what_can_t_be_right_is_refused(changes: dict[str, Any], more: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        recipe_of(changes) if not more else tiny_recipe(
            **{"mirroring": {"axes": []}, "training": {"augmentation": {"flip_axes": [], **changes}}, **more}
        )


def test_rotation_keeps_lengths_and_turns_about_its_axis() -> None:
    matrix = rotation((30.0, -20.0, 75.0))
    assert matrix @ matrix.T == pytest.approx(np.eye(3))
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert rotation((0, 0, 90.0)) @ (1, 0, 0) == pytest.approx((0, 1, 0))
    assert rotation((90.0, 0, 0)) @ (5, 1, 0) == pytest.approx((5, 0, 1))


def test_with_thick_slices_shapes_stay_as_they_are() -> None:
    spacing = np.array([6.5, 0.5, 0.8])
    config = AugmentationConfig.model_validate({**OFF, "rotation_probability": 1.0, "rotation_degrees": 40.0})
    matrix = draw_warp(config, SHAPE, spacing.tolist(), np.random.default_rng(0)).matrix
    in_mm = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
    assert in_mm @ in_mm.T == pytest.approx(np.eye(3), abs=1e-9)
    assert not np.allclose(matrix @ matrix.T, np.eye(3))


def test_rotation_about_one_axis_alone() -> None:
    config = AugmentationConfig.model_validate({**OFF, "rotation_probability": 1.0, "rotation_degrees": [40, 0, 0]})
    for seed in range(5):
        matrix = draw_warp(config, SHAPE, (3, 1, 1), np.random.default_rng(seed)).matrix
        assert matrix[0].tolist() == [1, 0, 0]
        assert matrix[:, 0].tolist() == [1, 0, 0]
        assert 0 < abs(matrix[1, 2]) <= np.sin(np.radians(40))


def test_nothing_drawn_is_the_identity_whatever_the_spacing() -> None:
    config = AugmentationConfig.model_validate({**OFF, "flip_axes": [0, 2]})
    warps = [draw_warp(config, SHAPE, (0.7, 0.31, 5.03), np.random.default_rng(seed)) for seed in range(20)]
    assert not any(warp.moves for warp in warps)
    assert {warp.flips for warp in warps} == {(), (0,), (2,), (0, 2)}


def test_one_resampling_is_that_of_scipy() -> None:
    """Rotation, scaling, flips and elastic deformation of a window that reaches beyond the case on two sides."""
    rng = np.random.default_rng(5)
    image = rng.normal(0, 1, (2, 20, 17, 23)).astype(np.float32)
    labels = rng.integers(0, 9, (20, 17, 23)).astype(np.int32)
    config = AugmentationConfig.model_validate({**OFF, **EVERYTHING})
    window, start = (10, 12, 8), (-3, 4, 18)
    warp = draw_warp(config, window, (1.0, 2.0, 0.5), rng)
    assert warp.bend_KDHW is not None
    at = np.empty((3, *window))
    for index in np.ndindex(window):
        offset = np.array(index) - (np.array(window) - 1) / 2
        offset[list(warp.flips)] *= -1
        centre = np.array(start) + (np.array(window) - 1) / 2
        at[(slice(None), *index)] = warp.matrix @ offset + centre + warp.bend_KDHW[(slice(None), *index)].numpy()
    found, found_labels = warped(torch.from_numpy(image), torch.from_numpy(labels), start, window, warp)
    for channel, values in zip(found, image, strict=True):
        expected = ndimage.map_coordinates(values, at, order=1, mode="grid-constant")
        assert channel.numpy() == pytest.approx(expected, abs=1e-4)
    # Away from ties between two voxels, where rounding of the last bit decides.
    clear = (np.abs(at - np.floor(at) - 0.5) > 1e-3).all(0)
    expected = ndimage.map_coordinates(labels, at, order=0, mode="grid-constant")
    assert np.array_equal(found_labels[0].numpy()[clear], expected[clear])
    assert clear.mean() > 0.9


def test_what_lies_beyond_the_window_turns_into_it() -> None:
    case = as_case(torch.ones((40, 40, 40), dtype=torch.int32))
    recipe = recipe_of({"rotation_probability": 1.0, "rotation_degrees": 45.0})
    for seed in range(3):
        image, labels = Augmentation(recipe)(Place(case, (13, 14, 12)), np.random.default_rng(seed))
        assert bool((labels == 1).all())
        assert image.numpy() == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize("together", [True, False])
def test_a_factor_above_1_makes_things_larger(together: bool) -> None:
    labels = torch.zeros((12, 10, 14), dtype=torch.int32)
    labels[4:8, 3:7, 5:9] = 1
    changes: dict[str, Any] = {"scaling_probability": 1.0, "scaling_together": together}
    _, larger = run(labels=labels, **changes, scaling_range=[2.0, 2.0])
    _, smaller = run(labels=labels, **changes, scaling_range=[0.5, 0.5])
    assert (int(larger.sum()), int(smaller.sum())) == (8**3, 2**3)


def test_together_all_axes_have_one_factor() -> None:
    for together in (True, False):
        config = AugmentationConfig.model_validate({**OFF, "scaling_probability": 1.0, "scaling_together": together})
        factors = 1 / np.diag(draw_warp(config, SHAPE, (1, 3, 2), np.random.default_rng(2)).matrix)
        assert (factors >= 0.7).all()
        assert (factors <= 1.4).all()
        assert (len(set(np.round(factors, 9))) == 1) is together


def test_elastic_displacements_are_smooth_bounded_and_fold_nothing() -> None:
    window = (30, 24, 28)
    config = AugmentationConfig.model_validate(
        {**OFF, "elastic_probability": 1.0, "elastic_spacing_mm": 10.0, "elastic_displacement_mm": 4.0}
    )
    spacing = (2.0, 1.0, 0.8)
    largest = 0.0
    for seed in range(10):
        warp = draw_warp(config, window, spacing, np.random.default_rng(seed))
        assert warp.bend_KDHW is not None
        in_mm = warp.bend_KDHW * torch.tensor(spacing)[:, None, None, None]
        largest = max(largest, float(in_mm.abs().max()))
        at = coordinates(warp, (0, 0, 0), window).numpy()
        steps = np.stack([np.gradient(at[..., axis]) for axis in range(3)])  # [coordinate, along, ...]
        volume = np.linalg.det(np.moveaxis(steps, (0, 1), (-2, -1)))
        assert volume.min() > 0
    assert 2.0 < largest <= 4.0


def test_a_smooth_field_between_equal_points_is_flat() -> None:
    class Ones:
        def uniform(self, *given: Any) -> Any:
            return np.ones(given[-1])

    field = smooth_field((7, 9, 11), (3.0, 2.5, 40.0), 2, Ones())  # type: ignore[arg-type]
    assert field.shape == (2, 7, 9, 11)
    assert field.numpy() == pytest.approx(1, abs=1e-5)


def test_elastic_moves_image_and_labels_together() -> None:
    image, labels = run(elastic_probability=1.0, elastic_spacing_mm=8.0, elastic_displacement_mm=3.0)
    assert not torch.equal(labels[0], blocks())
    # Inside a label the image holds ten times its value; only at edges, where it is interpolated, do they differ.
    assert ((image - 10 * labels).abs() < 1e-3).float().mean() > 0.6
    assert ((image - 10 * labels).abs() < 10).float().mean() > 0.9


def test_an_ignored_voxel_stays_one() -> None:
    labels = blocks()
    labels[labels == 2] = 9
    _, turned = run(labels=labels, rotation_probability=1.0)
    assert set(turned.unique().tolist()) == {0, 1, 9}


def test_a_window_that_sees_next_to_nothing_of_a_case() -> None:
    case = as_case(torch.ones((2, 30, 30), dtype=torch.int32))
    image, labels = Augmentation(recipe_of({"rotation_probability": 1.0, "rotation_degrees": 90.0}))(
        Place(case, (-10, 0, 0)), np.random.default_rng(0)
    )
    assert image.shape == labels.shape == (1, *SHAPE)
    warp = Warp(np.eye(3) * 1.01)
    image, labels = warped(case.prepared.tensor_CDHW, case.labels_DHW, (50, 50, 50), SHAPE, warp)
    assert (float(image.abs().max()), int(labels.max())) == (0, 0)
