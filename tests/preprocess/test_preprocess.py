from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from volseg.config import STORED_KJI, IntensityConfig, Recipe, recipe_from_dict
from volseg.geometry import ORIENTATIONS, Geometry
from volseg.preprocess import model_shape, prepare, prepare_labels
from volseg.preprocess.intensity import normalise
from volseg.volume import Label, LabelVolume, Volume

LABELS = (Label(value=1, name="a", colour=(1, 2, 3)), Label(value=4, name="b", colour=(3, 2, 1)))


def recipe(**fields: Any) -> Recipe:
    return recipe_from_dict(
        {
            "name": "test",
            "channels": [{"name": "x", "modalities": ["MR"]}],
            "labels": [{"value": 1, "name": "a", "colour": [1, 2, 3]}, {"value": 4, "name": "b", "colour": [3, 2, 1]}],
            "window": [8, 8, 8],
            "intensity": {"scheme": "none"},
            **fields,
        },
        "test",
    )


def affine_of(orientation: str, spacing: tuple[float, float, float]) -> np.ndarray:
    """Affine of axcodes, spelt out."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    for axis, (letter, size) in enumerate(zip(orientation, spacing, strict=True)):
        affine[:3, axis] = np.array(directions[letter]) * size
    affine[:3, 3] = (7.0, -3.0, 11.0)
    return affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_tensor_axes_grow_as_the_recipe_says_however_the_file_is_stored(orientation: str) -> None:
    """Each voxel holds its own world coordinate: along D, H, W it must grow towards S, A, R."""
    geometry = Geometry((3, 4, 5), affine_of(orientation, (1.0, 2.0, 3.0)))
    index = np.stack(np.meshgrid(*(np.arange(size) for size in geometry.shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(geometry.voxel_to_world(index), -1, 0)
    for world, axis in ((z, 0), (y, 1), (x, 2)):
        tensor = prepare(Volume(world.astype(np.float32), geometry), recipe(orientation="SAR")).tensor_CDHW[0]
        steps = torch.diff(tensor, dim=axis)
        assert (steps > 0).all()
        for other in {0, 1, 2} - {axis}:
            assert (torch.diff(tensor, dim=other) == 0).all()


def test_stored_kji_takes_the_files_axes_reversed() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(array, Geometry((2, 3, 4), affine_of("PIL", (1.0, 1.0, 1.0))))
    tensor = prepare(volume, recipe(orientation=STORED_KJI)).tensor_CDHW[0]
    assert np.array_equal(tensor.numpy(), array.transpose(2, 1, 0))


def test_the_models_grid_covers_the_same_box() -> None:
    geometry = Geometry((10, 20, 8), affine_of("LPS", (1.5, 1.0, 4.0)))
    # 15 x 20 x 32 mm at 2 x 2 x 2 mm; in the recipe's order S, A, R
    assert model_shape(geometry, recipe(orientation="SAR", spacing_mm=[2, 2, 2])) == (16, 10, 8)
    assert model_shape(geometry, recipe(orientation="SAR")) == (8, 20, 10)


def test_zscore_worked_by_hand() -> None:
    # 1, 2, 3, 4: mean 2.5, population deviation sqrt(1.25)
    channel = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2)
    got = normalise(channel, IntensityConfig()).flatten().tolist()
    assert got == pytest.approx([-1.341641, -0.447214, 0.447214, 1.341641], abs=1e-6)


def test_a_constant_channel_becomes_zero() -> None:
    assert not normalise(torch.full((2, 2, 2), 7.0), IntensityConfig()).any()
    assert not normalise(torch.full((2, 2, 2), 7.0), IntensityConfig(scheme="minmax")).any()


def test_clip_and_fixed_scale_worked_by_hand() -> None:
    config = IntensityConfig(scheme="fixed", clip=(-100.0, 100.0), mean=50.0, std=25.0)
    values = torch.tensor([-1000.0, 0.0, 50.0, 3000.0]).reshape(1, 2, 2)
    assert normalise(values, config).flatten().tolist() == [-6.0, -2.0, 0.0, 2.0]


def test_minmax_worked_by_hand() -> None:
    values = torch.tensor([-10.0, 0.0, 10.0, 30.0]).reshape(1, 2, 2)
    assert normalise(values, IntensityConfig(scheme="minmax")).flatten().tolist() == [0.0, 0.25, 0.5, 1.0]


def test_clip_to_quantiles_of_the_case() -> None:
    values = torch.arange(101.0).flip(0).reshape(1, 1, 101)
    config = IntensityConfig(scheme="none", clip_percentiles=(0.05, 0.9))
    got = normalise(values, config)
    assert got.min() == 5
    assert got.max() == 90


def test_labels_are_never_interpolated_as_numbers() -> None:
    """Between 0 and 4 there is no 1, though 1 is a label: the mean would be."""
    array = np.zeros((4, 4, 4), np.uint8)
    array[2:] = 4
    labels = LabelVolume(array, Geometry((4, 4, 4), affine_of("RAS", (1.0, 1.0, 1.0))), LABELS)
    got = prepare_labels(labels, recipe(spacing_mm=[0.25, 1.0, 1.0]))
    assert got.shape == (16, 4, 4)
    assert got.unique().tolist() == [0, 4]
    assert (got[:8] == 0).all()
    assert (got[8:] == 4).all()
