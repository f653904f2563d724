"""A tilted scan on straight slices: compared with other libraries' interpolation at the same places in the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import volseg
from tests.helpers.dicom_files import Array, lps_affine, rotation, sheared, voxels, write_series
from volseg.errors import GeometryError
from volseg.geometry import Geometry, ras_from_lps
from volseg.inference.restore import on_grid
from volseg.loaders import find
from volseg.loaders.tilt import straightened
from volseg.volume import Label, LabelVolume, Source, Volume

SHAPE = (19, 23, 9)
SPACING = (0.7, 0.9, 2.5)
TILTS = [(5.0, 0), (-5.0, 0), (5.0, 1), (-5.0, 1), (15.0, 0), (-15.0, 0), (15.0, 1), (-15.0, 1)]


def leaning(degrees: float, along: int, angles: tuple[float, float, float] = (12, -17, 9)) -> Geometry:
    affine = lps_affine(SPACING, directions=rotation(*angles))
    affine[:3, 2] += np.tan(np.radians(degrees)) * SPACING[2] * affine[:3, along] / SPACING[along]
    return Geometry(SHAPE, ras_from_lps(affine))


def places(grid: Geometry) -> Array:
    """(i, j, k, 3) RAS+ mm of the voxel centres."""
    return grid.voxel_to_world(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))


def tilted(degrees: float, along: int, array: Array | None = None) -> Volume:
    array = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16) if array is None else array
    return Volume(array, leaning(degrees, along), Source(name="head"))


def as_float(volume: Volume) -> Array:
    return volume.array.astype(float)


def covered(straight: Volume, stored: Geometry) -> tuple[Array, Array]:
    """(3, ...) indices of the straight voxels in the stored array, and which of them lie between voxel centres."""
    points = np.moveaxis(stored.world_to_voxel(places(straight.geometry)), -1, 0)
    last = np.array(stored.shape)[:, None, None, None] - 1
    return points, np.all((points > -1e-9) & (points < last + 1e-9), axis=0)


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_values_are_scipys_at_the_same_place_in_the_patient(degrees: float, along: int) -> None:
    volume = tilted(degrees, along)
    straight = straightened(volume)
    points, inside = covered(straight, volume.geometry)
    expected = ndimage.map_coordinates(volume.array.astype(float), points, order=1, mode="nearest")
    assert straight.array.dtype == np.float32
    assert_allclose(as_float(straight)[inside], expected[inside], atol=1e-3)
    half = np.array(SHAPE)[:, None, None, None] - 0.5
    outside = ((points < -0.5 - 1e-9) | (points > half + 1e-9)).any(0)
    assert outside.sum() > 100
    assert (straight.array[outside] == volume.array.min()).all()


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_values_are_simpleitks(degrees: float, along: int) -> None:
    """ITK can't hold the sheared grid: its transform from straight to stored indices stands in for that."""
    volume = tilted(degrees, along)
    straight = straightened(volume)
    image = SimpleITK.GetImageFromArray(volume.array.astype(np.float32).T)
    to_stored = np.linalg.inv(volume.geometry.affine) @ straight.geometry.affine
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(to_stored[:3, :3].ravel())
    transform.SetTranslation(to_stored[:3, 3])
    grid = SimpleITK.Image(straight.geometry.shape, SimpleITK.sitkFloat32)
    lowest = float(volume.array.min())
    got = SimpleITK.Resample(image, grid, transform, SimpleITK.sitkLinear, lowest)
    _, inside = covered(straight, volume.geometry)
    assert_allclose(as_float(straight)[inside], SimpleITK.GetArrayFromImage(got).T[inside], atol=1e-2)


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_a_sphere_is_round_and_where_it_was(degrees: float, along: int) -> None:
    stored = leaning(degrees, along)
    centre = places(stored)[9, 11, 4]

    def ball(grid: Geometry) -> Array:
        return np.asarray(100 - 20 * np.linalg.norm(places(grid) - centre, axis=-1))

    straight = straightened(Volume(ball(stored), stored))
    _, inside = covered(straight, stored)
    near = inside & (ball(straight.geometry) > 0)
    assert near.sum() > 100
    # Off by what linear interpolation inside a slice flattens at the tip: 20 / mm over half a pixel.
    assert np.abs(straight.array - ball(straight.geometry))[near].max() < 9.5
    assert np.abs(straight.array - ball(straight.geometry))[near].mean() < 0.5
    ramp = np.array([3.0, -2.0, 5.0])
    straight = straightened(Volume(places(stored) @ ramp, stored))
    assert_allclose(as_float(straight)[inside], (places(straight.geometry) @ ramp)[inside], atol=1e-3)


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_nothing_is_mixed_between_slices(degrees: float, along: int) -> None:
    """Each slice has a value of its own, far from the others'."""
    array = np.broadcast_to(1000.0 * np.arange(1, SHAPE[2] + 1), SHAPE)
    straight = straightened(tilted(degrees, along, array))
    for k in range(SHAPE[2]):
        assert set(np.unique(straight.array[:, :, k])) <= {1000.0, 1000.0 * (k + 1)}
        assert (straight.array[:, :, k] == 1000.0 * (k + 1)).sum() >= (SHAPE[0] - 1) * (SHAPE[1] - 1)


def test_channels_are_shifted_alike() -> None:
    one, two = tilted(5, 1).array, np.flip(tilted(5, 1).array)
    both = straightened(Volume(np.stack([one, two]), leaning(5, 1)))
    assert_array_equal(both.array[0], straightened(tilted(5, 1, one)).array)
    assert_array_equal(both.array[1], straightened(tilted(5, 1, two)).array)


def test_the_source_remembers_the_stored_grid() -> None:
    straight = straightened(tilted(5, 1))
    assert straight.source.name == "head"
    assert straight.source.stored is not None
    assert straight.source.stored.difference(leaning(5, 1), 1e-12) is None
    assert not straight.geometry.sheared


# labels, back on the stored slices


def labels_on(array: Array, grid: Geometry) -> LabelVolume:
    named = tuple(Label(value=value, name=f"{value}", colour=(9, 9, 9)) for value in (1, 2, 7))
    return LabelVolume(array, grid, named)


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_labels_come_back_where_they_were(degrees: float, along: int) -> None:
    """Boxes go there and back: only pixels on their edges along the lean may differ, and no value is new."""
    stored = leaning(degrees, along)
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[3:16, 4:19, 2:8] = 1
    array[6:12, 8:15, 3:6] = 7
    straight = straightened(Volume(array, stored)).geometry
    there = on_grid(labels_on(array, stored), straight)
    assert there.geometry is straight
    back = on_grid(there, stored)
    assert back.array.dtype == np.uint8
    assert back.geometry is stored
    # The nearest pixel of the nearest pixel is at most one away: away from edges nothing changes.
    edges = np.zeros(SHAPE, dtype=bool)
    edges[(slice(None),) * along + (slice(1, None),)] |= np.diff(array, axis=along) != 0
    edges |= np.roll(edges, -1, axis=along)
    assert (back.array == array)[~edges].all()
    assert set(np.unique(back.array)) <= {0, 1, 7}
    assert (back.array != array).mean() < 0.05


@given(
    degrees=st.floats(-30, 30),
    along=st.integers(0, 1),
    angles=st.tuples(*(st.floats(-180, 180),) * 3),
)
def test_each_stored_voxel_gets_the_label_of_its_nearest(
    degrees: float, along: int, angles: tuple[float, float, float]
) -> None:
    stored = leaning(degrees, along, angles)
    straight = straightened(Volume(np.zeros(SHAPE, np.int16), stored)).geometry
    number = np.arange(np.prod(straight.shape), dtype=np.uint32).reshape(straight.shape)
    back = on_grid(LabelVolume(number, straight, ()), stored).array
    found = places(straight).reshape(-1, 3)[back]
    apart = np.linalg.norm(found - places(stored), axis=-1)
    # Along one axis alone, and no further than half a pixel.
    assert apart.max() <= SPACING[along] / 2 + 1e-6


def test_labels_on_their_own_grid_are_left_alone() -> None:
    labels = labels_on(np.ones(SHAPE, np.uint8), leaning(5, 1))
    assert on_grid(labels, leaning(5, 1)) is labels


# from files


@pytest.mark.parametrize("degrees", [5.0, -15.0])
def test_a_tilted_series_is_loaded_only_when_asked(tmp_path: Path, degrees: float) -> None:
    affine = sheared(lps_affine(), degrees)
    write_series(tmp_path, affine=affine, modality="CT")
    (candidate,) = find(tmp_path).candidates
    assert (candidate.usable, candidate.code) == (False, "tilted")
    assert candidate.geometry is not None
    assert_allclose(candidate.geometry.affine, ras_from_lps(affine), atol=1e-6)
    for load in (candidate.load, lambda: volseg.load(tmp_path)):
        with pytest.raises(GeometryError, match="--resample-tilt"):
            load()

    for volume in (candidate.load(resample_tilt=True), volseg.load(tmp_path, resample_tilt=True)):
        stored = volume.source.stored
        assert stored is not None
        assert_allclose(stored.affine, ras_from_lps(affine), atol=1e-6)
        assert not volume.geometry.sheared
        assert_array_equal(volume.array, straightened(Volume(voxels(), stored)).array)


def test_a_straight_series_is_the_same_with_and_without(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume = volseg.load(tmp_path, resample_tilt=True)
    assert volume.source.stored is None
    assert volume.array.dtype == np.int16
    assert_array_equal(volume.array, voxels())
