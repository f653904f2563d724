from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from tests.helpers.recipes import affine_of, recipe
from volseg.config import STORED_KJI, IntensityConfig
from volseg.geometry import ORIENTATIONS, Geometry
from volseg.inference import load_model
from volseg.loaders import load
from volseg.preprocess import intensity, model_shape, prepare, prepare_labels
from volseg.preprocess.grid import Box
from volseg.preprocess.intensity import content_mask, normalise
from volseg.volume import Label, LabelVolume, Volume

SAMPLE = Path(__file__).parents[2] / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_017.nii.gz"
LABELS = (Label(value=1, name="a", colour=(1, 2, 3)), Label(value=4, name="b", colour=(3, 2, 1)))


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


def test_masked_zscore_worked_by_hand() -> None:
    """Content is 2, 6 and the hole between them; mean 8 / 3, and 0 outside."""
    array = np.zeros((5, 3, 3), np.float32)
    array[1:4] = 6
    array[1, :, :] = 2
    array[2, 1, 1] = 0
    mask = content_mask(array[None])
    assert mask.sum() == 27
    assert mask[2, 1, 1]
    inside = array[1:4]
    got = normalise(torch.from_numpy(array.copy()), IntensityConfig(use_mask=True), mask).numpy()
    np.testing.assert_allclose(got[1:4], (inside - inside.mean()) / inside.std(), atol=1e-6)
    assert not got[[0, 4]].any()


def test_statistics_are_summed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pieces hold nothing of the content, and the mean is far larger than the deviation."""
    monkeypatch.setattr(intensity, "CHUNK", 7)
    values = np.random.default_rng(0).normal(1e5, 3, (5, 4, 3)).astype(np.float32)
    mask = np.zeros(values.shape, bool)
    mask[2:, 1:] = True
    inside = values[mask].astype(float)
    got = normalise(torch.from_numpy(values.copy()), IntensityConfig(use_mask=True), torch.from_numpy(mask)).numpy()
    # One step of single precision at 10^5 is 0.008, of a deviation of 3.
    np.testing.assert_allclose(got[mask], (inside - inside.mean()) / inside.std(), atol=0.003)
    got = normalise(torch.from_numpy(values.copy()), IntensityConfig()).numpy()
    np.testing.assert_allclose(got, (values - values.mean(dtype=float)) / values.std(dtype=float), atol=0.003)


@given(
    arrays.arrays(
        np.int8,
        st.tuples(st.integers(1, 2), *(st.integers(1, 6),) * 3),
        elements=st.sampled_from([0, 0, 1, 1, 1, -3]),
    )
)
def test_content_has_its_holes_filled(array: np.ndarray) -> None:
    expected = ndimage.binary_fill_holes((array != 0).any(0))
    assert np.array_equal(content_mask(array).numpy(), expected)


def test_each_channel_has_its_own_scheme_and_the_scan_is_left_as_it_is() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(100, 20, (3, 4, 5, 6)).astype(np.float32)
    channels = [
        {"name": "a", "modalities": ["MR"]},
        {"name": "b", "modalities": ["MR"], "intensity": {"scheme": "fixed", "mean": 100, "std": 20}},
        {"name": "c", "modalities": ["MR"], "intensity": {"scheme": "zscore"}},
    ]
    before = array.copy()
    volume = Volume(array, Geometry((4, 5, 6), affine_of("RAS", (1.0, 1.0, 1.0))))
    got = prepare(volume, recipe(channels=channels)).tensor_CDHW.numpy()
    assert np.array_equal(array, before)
    assert np.array_equal(got[0], array[0])
    np.testing.assert_allclose(got[1], (array[1] - 100) / 20, atol=1e-6)
    np.testing.assert_allclose(got[2], (array[2] - array[2].mean()) / array[2].std(), atol=1e-5)


def test_a_crop_is_normalised_and_resampled_by_itself() -> None:
    """As a scan that ends where the content does would be."""
    rng = np.random.default_rng(1)
    content = rng.integers(1, 900, (4, 6, 5)).astype(np.int16)
    array = np.pad(content, ((2, 1), (0, 3), (1, 0)))
    choices = recipe(crop="nonzero", spacing_mm=[0.7, 2.0, 1.5], orientation="SAR", intensity={"scheme": "zscore"})
    whole = prepare(Volume(array, Geometry(array.shape, affine_of("RPS", (1.0, 1.2, 1.4)))), choices)
    alone = prepare(Volume(content, Geometry(content.shape, affine_of("RPS", (1.0, 1.2, 1.4)))), choices)
    torch.testing.assert_close(whole.tensor_CDHW, alone.tensor_CDHW)
    assert whole.turned_shape == (6, 9, 7)
    # In S, A, R: one slice below, the three behind become those in front of the content, two to the left.
    assert whole.box == Box((1, 3, 2), (5, 6, 4))
    assert alone.box == Box((0, 0, 0), (5, 6, 4))


def test_without_a_crop_all_of_the_scan_is_seen() -> None:
    array = np.zeros((4, 6, 5), np.int16)
    array[1:3, 2:4, 2:4] = 7
    prepared = prepare(Volume(array, Geometry(array.shape, affine_of("RAS", (1.0, 1.0, 1.0)))), recipe())
    assert prepared.box == Box((0, 0, 0), (4, 6, 5))
    assert prepared.tensor_CDHW.shape == (1, 4, 6, 5)


IMAGE_FIRST = {"scheme": "image", "image_order": 1}


def test_images_are_resampled_and_cut_before_crop_and_normalisation() -> None:
    """Along i: 0 0 0 -5 10 at 1 mm; at 2 mm three voxels, at 0, 2 and 4, so 0, 0 and 10; turned, 10 0 0."""
    line = np.array([0, 0, 0, -5, 10], np.int16).reshape(5, 1, 1)
    choices = recipe(spacing_mm=[2, 1, 1], crop="nonzero", resampling=IMAGE_FIRST, orientation="LAS")
    prepared = prepare(Volume(line, Geometry((5, 1, 1), affine_of("RAS", (1.2, 1.0, 1.0)))), choices)
    assert prepared.zoomed == (3, 1, 1)
    assert prepared.box == Box((0, 0, 0), (1, 1, 1))
    assert prepared.tensor_CDHW.ravel().tolist() == [10]
    # Four voxels, at 0, 4/3, 8/3 and 4: -3.33 is cut to -3.
    finer = recipe(spacing_mm=[1.5, 1, 1], crop="nonzero", resampling=IMAGE_FIRST)
    prepared = prepare(Volume(line, Geometry((5, 1, 1), affine_of("RAS", (1.2, 1.0, 1.0)))), finer)
    assert prepared.zoomed == (4, 1, 1)
    assert prepared.box == Box((2, 0, 0), (2, 1, 1))
    assert prepared.tensor_CDHW.ravel().tolist() == [-3, 10]


def test_an_image_that_has_the_models_spacing_is_not_cut() -> None:
    values = np.linspace(-3.3, 4.2, 24, dtype=np.float32).reshape(2, 3, 4)
    choices = recipe(spacing_mm=[3, 3, 3], resampling=IMAGE_FIRST)
    for spacing, whole in (((3.0, 3.0, 3.0), False), ((3.0, 3.0, 3.00001), True)):
        prepared = prepare(Volume(values, Geometry((2, 3, 4), affine_of("RAS", spacing))), choices)
        assert prepared.tensor_CDHW.shape == (1, 2, 3, 4)
        assert np.array_equal(prepared.tensor_CDHW[0].numpy(), np.trunc(values) if whole else values)


def test_labels_lie_where_an_image_that_is_resampled_first_has_them() -> None:
    """The label map, given as an image too: where its share is more than half, the label is."""
    array = np.zeros((13, 9, 7), np.uint8)
    array[2:8, 3:, 2:5] = 4
    geometry = Geometry(array.shape, affine_of("LSA", (1.0, 1.5, 2.0)))
    choices = recipe(spacing_mm=[1.0, 2.0, 1.7], crop="nonzero", resampling=IMAGE_FIRST, orientation="SAR")
    prepared = prepare(Volume(array.astype(np.float32) * 1000, geometry), choices)
    labels = prepare_labels(LabelVolume(array, geometry, LABELS), choices, prepared.crop)
    assert labels.shape == prepared.tensor_CDHW.shape[1:]
    share = prepared.tensor_CDHW[0] / 4000
    assert set(labels.unique().tolist()) == {0, 4}
    assert torch.equal(labels == 4, share > 0.5)
    whole = prepare_labels(LabelVolume(array, geometry, LABELS), choices)
    assert tuple(whole.shape) == prepared.zoomed
    assert (whole == 4).sum() == (labels == 4).sum()


def test_thick_slices_are_kept_apart_there_and_back() -> None:
    array = np.zeros((6, 6, 3), np.int16)
    array[:, :, 1] = 100
    array[3:, :, 2] = 50
    volume = Volume(array, Geometry(array.shape, affine_of("RAS", (1.0, 1.0, 5.0))))
    together = prepare(volume, recipe(spacing_mm=[1.0, 1.0, 2.5]))
    apart = prepare(volume, recipe(spacing_mm=[1.0, 1.0, 2.5], resampling={"separate_axis": "auto"}))
    assert together.nearest_axis is None
    assert apart.nearest_axis == 2
    assert apart.tensor_CDHW[0, 0, 0].tolist() == [0, 0, 100, 100, 0, 0]
    assert apart.tensor_CDHW[0, 5, 0].tolist() == [0, 0, 100, 100, 50, 50]
    assert not set(together.tensor_CDHW[0, 0, 0].tolist()) <= {0, 100}


def test_images_may_be_resampled_linearly() -> None:
    volume = Volume(np.array([0, 4], np.int16).reshape(2, 1, 1), Geometry((2, 1, 1), affine_of("RAS", (2.0, 1.0, 1.0))))
    got = prepare(volume, recipe(spacing_mm=[1, 1, 1], resampling={"image_order": 1})).tensor_CDHW.flatten().tolist()
    assert got == [0.0, 1.0, 3.0, 4.0]


def test_labels_are_cropped_with_their_scan() -> None:
    array = np.zeros((6, 4, 5), np.uint8)
    array[2:4] = 1
    array[3, 1] = 4
    labels = LabelVolume(array, Geometry(array.shape, affine_of("LAS", (1.0, 1.0, 1.0))), LABELS)
    got = prepare_labels(labels, recipe(spacing_mm=[0.5, 1, 1]), Box((1, 1, 0), (3, 2, 5)))
    expected = array[::-1][1:4, 1:3].repeat(2, 0)
    assert np.array_equal(got.numpy(), expected)


def test_the_bundled_models_input_is_what_it_was() -> None:
    """Its scans lie on its grid: minus the mean, over the standard deviation, nothing else."""
    model = load_model("hippocampus")
    volume = load(SAMPLE)
    scan = nibabel.as_closest_canonical(nibabel.load(SAMPLE)).get_fdata(dtype=np.float32)
    mean, std = (np.float32(value) for value in (scan.mean(dtype=float), scan.std(dtype=float)))
    assert np.array_equal(prepare(volume, model.recipe).tensor_CDHW[0].numpy(), (scan - mean) / std)
    counts = model.predict(volume).voxel_counts()
    assert counts == {1: pytest.approx(1926, abs=3), 2: pytest.approx(1323, abs=3)}


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
