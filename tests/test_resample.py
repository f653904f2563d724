from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tests.helpers.dicom_files import Array, lps_affine, rotation
from volseg.geometry import Geometry
from volseg.resample import (
    Order,
    axis_operator,
    nearest_index,
    put_back,
    resampled,
    resize,
    straight_grid,
    tilt_degrees,
    zoomed,
)

sizes = st.integers(2, 9)


def oracle(array: np.ndarray, shape: tuple[int, ...], order: Order) -> np.ndarray:
    """The slow way: scipy's spline zoom of the whole array, one channel after another, clipped to its range."""
    factors = [new / old for new, old in zip(shape, array.shape[1:], strict=True)]
    channels = [ndimage.zoom(c, factors, order=order, mode="nearest", grid_mode=True) for c in array]
    return np.stack([np.clip(out, c.min(), c.max()) for out, c in zip(channels, array, strict=True)])


@given(
    old=st.tuples(sizes, sizes, sizes),
    new=st.tuples(sizes, sizes, sizes),
    order=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_equals_scipys_zoom(old: tuple[int, int, int], new: tuple[int, int, int], order: Order, seed: int) -> None:
    array = np.random.default_rng(seed).normal(size=(2, *old))
    got = resize(torch.from_numpy(array), new, order=order)
    np.testing.assert_allclose(got.numpy(), oracle(array, new, order), atol=1e-12)


def test_linear_doubling_worked_by_hand() -> None:
    # Voxel edges stay: the new centres lie at -0.25, 0.25, 0.75, 1.25 in old indices; beyond the centres it is flat.
    line = torch.tensor([[[[0.0, 4.0]]]])
    assert resize(line, (1, 1, 4), order=1).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def test_a_cubic_spline_does_not_leave_the_range_of_its_channel() -> None:
    step = torch.zeros(2, 1, 1, 8)
    step[0, ..., 4:] = 1.0
    step[1, ..., 4:] = 100.0
    got = resize(step, (1, 1, 24), order=3)
    assert got[0].min() == 0
    assert got[0].max() == 1
    assert got[1].max() == 100


def test_an_axis_of_one_voxel_is_repeated() -> None:
    assert resize(torch.full((1, 1, 2, 3), 5.0), (4, 2, 3), order=3).flatten().tolist() == [5.0] * 24


@pytest.mark.parametrize("order", [1, 3])
def test_rows_of_an_operator_sum_to_one(order: Order) -> None:
    torch.testing.assert_close(axis_operator(7, 19, order).sum(1), torch.ones(19, dtype=torch.float64))


def slice_by_slice(array: np.ndarray, shape: tuple[int, ...], order: Order, axis: int) -> np.ndarray:
    """The slow way: every slice resized and clipped by itself, then the nearest slice at each place."""
    channels = []
    for channel in array:
        slices = np.moveaxis(channel, axis, 0)
        plane = [size for other, size in enumerate(shape) if other != axis]
        resized = np.stack([oracle(one[None], tuple(plane), order)[0] for one in slices])
        centres = (np.arange(shape[axis]) + 0.5) * (len(slices) / shape[axis]) - 0.5
        points = np.meshgrid(centres, *(np.arange(size) for size in plane), indexing="ij")
        nearest = ndimage.map_coordinates(resized, points, order=0, mode="nearest")
        channels.append(np.moveaxis(nearest, 0, axis))
    return np.stack(channels)


@given(
    old=st.tuples(sizes, sizes, sizes),
    new=st.tuples(sizes, sizes, sizes),
    order=st.sampled_from([1, 3]),
    axis=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_slice_by_slice(
    old: tuple[int, int, int], new: tuple[int, int, int], order: Order, axis: int, seed: int
) -> None:
    array = np.random.default_rng(seed).normal(size=(2, *old))
    got = resize(torch.from_numpy(array), new, order=order, nearest=axis)
    np.testing.assert_allclose(got.numpy(), slice_by_slice(array, new, order, axis), atol=1e-12)


@given(st.integers(1, 900), st.integers(1, 900))
def test_the_nearest_slice_is_the_one_that_scipy_takes(old: int, new: int) -> None:
    centres = float(old) / new * (np.arange(new) + 0.5) - 0.5
    expected = ndimage.map_coordinates(np.arange(old), centres[None], order=0, mode="nearest")
    assert nearest_index(old, new).tolist() == expected.tolist()
    assert axis_operator(old, new, 0).argmax(1).tolist() == expected.tolist()


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 7), st.integers(1, 7))


@given(SIZES, SIZES, st.integers(0, 99))
def test_zoomed_is_scipys_zoom_to_the_last_bit_in_the_order_w_h_d(
    old: tuple[int, int, int], new: tuple[int, int, int], seed: int
) -> None:
    array = np.random.default_rng(seed).integers(-3, 3, old).astype(np.int16) * 100
    factors = [after / before for before, after in zip(old, new, strict=True)]
    expected = ndimage.zoom(array.transpose(2, 1, 0).astype(float), factors[::-1], order=1, mode="nearest")
    assert np.array_equal(zoomed(array, new), expected.transpose(2, 1, 0))


def test_zoomed_keeps_the_centres_of_the_outermost_voxels() -> None:
    """Five voxels to three: the first, the third, the fifth. Edges would stay at (0.33, 2, 3.67)."""
    ramp = np.arange(0, 50, 10, dtype=np.int16).reshape(5, 1, 1)
    assert zoomed(ramp, (3, 1, 1)).ravel().tolist() == [0, 20, 40]
    assert zoomed(ramp.transpose(1, 2, 0)[..., ::-1], (1, 1, 9)).ravel().tolist() == [40, 35, 30, 25, 20, 15, 10, 5, 0]
    assert zoomed(ramp, (1, 1, 1)).ravel().tolist() == [0]


@given(SIZES, SIZES, st.integers(0, 99))
def test_put_back_takes_the_voxels_that_scipys_zoom_does(
    old: tuple[int, int, int], new: tuple[int, int, int], seed: int
) -> None:
    array = np.random.default_rng(seed).integers(0, 250, old).astype(np.uint8)
    out = np.full(new[::-1], 255, np.uint8).transpose(2, 1, 0)
    put_back(array, out)
    factors = [after / before for before, after in zip(old, new, strict=True)]
    assert np.array_equal(out, ndimage.zoom(array, factors, order=0, mode="nearest"))


@given(st.integers(2, 300), st.integers(2, 300))
def test_there_and_back_nothing_is_shifted(size: int, other: int) -> None:
    """A voxel's place after both is less than half a voxel of the coarser grid from where it was, on either side."""
    ramp = np.arange(size, dtype=np.float64).reshape(size, 1, 1)
    back = np.empty_like(ramp)
    put_back(zoomed(ramp, (other, 1, 1)), back)
    off = (back - ramp).ravel()
    assert np.abs(off).max() <= max(0.5, (size - 1) / (other - 1) / 2) + 1e-9
    assert abs(off[0]) < 1e-9
    assert abs(off[-1]) < 1e-9
    np.testing.assert_allclose(np.abs(off), np.abs(off[::-1]), atol=1e-9)


@pytest.mark.parametrize("shape", [(90, 40, 33), (35, 90, 50), (40, 38, 100)])
@pytest.mark.parametrize("order", [1, 3])
def test_large_axes_in_single_precision(shape: tuple[int, int, int], order: Order) -> None:
    """Axes of several blocks and slabs, of which weights that don't matter are left out."""
    array = np.random.default_rng(0).normal(size=(1, 70, 41, 80)).astype(np.float32)
    got = resize(torch.from_numpy(array), shape, order=order)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), oracle(array.astype(float), shape, order), atol=3e-6)


def test_the_input_is_left_as_it_is() -> None:
    array = torch.arange(24.0).reshape(1, 2, 3, 4)
    before = array.clone()
    for nearest in (None, 0, 1, 2):
        for shape in ((4, 3, 4), (2, 5, 4), (1, 2, 7)):
            resize(array, shape, order=3, nearest=nearest)
            assert torch.equal(array, before)


# any grid onto any other


LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
STACK = (7, 9, 5)


def leaning(degrees: float, along: int, angles: tuple[float, float, float] = (12, -17, 9)) -> Geometry:
    """An oblique stack that leans along its columns' (0) or rows' (1) index, by `degrees` from the slices' normal."""
    affine = lps_affine((0.7, 0.9, 2.5), directions=rotation(*angles))
    affine[:3, 2] += np.tan(np.radians(degrees)) * 2.5 * affine[:3, along] / np.linalg.norm(affine[:3, along])
    return Geometry(STACK, LPS_TO_RAS @ affine)


def at_points(array: Array, source: Geometry, target: Geometry, order: int, fill: float) -> Array:
    """The slow way: every target voxel's place in the source, one voxel after another, two-fold or three-fold lerps."""
    result = np.empty(target.shape)
    for index in np.ndindex(*target.shape):
        point = source.world_to_voxel(target.voxel_to_world(index))
        last = np.array(array.shape) - 1
        if (point < -0.5 - 1e-9).any() or (point > last + 0.5 + 1e-9).any():
            result[index] = fill
            continue
        point = np.clip(point, 0, last)
        if order == 0:
            result[index] = array[tuple(np.floor(point + 0.5 + 1e-9).astype(int))]
            continue
        low = np.minimum(np.floor(point + 1e-9).astype(int), last - 1)
        share = point - low
        result[index] = sum(
            array[tuple(low + corner)] * np.prod(np.where(corner, share, 1 - share))
            for corner in np.array(list(np.ndindex(2, 2, 2)))
        )
    return result


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("angles", [(0, 0, 0), (8, 3, -20)])
def test_any_grid_onto_any_other(order: Literal[0, 1], angles: tuple[float, float, float]) -> None:
    source = leaning(15, 1, angles)
    other = lps_affine((1.1, 0.8, 3.1), (-29.0, 11.0, 103.0), rotation(-5, 2, 4))
    target = Geometry((6, 5, 4), LPS_TO_RAS @ other)
    array = np.random.default_rng(0).integers(0, 300, STACK).astype(np.int16)
    got = resampled(array, source, target, order=order, fill=-7)
    expected = at_points(array, source, target, order, -7)
    assert got.dtype == (np.int16 if order == 0 else np.float32)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert (got == -7).any()
    assert (got != -7).any()


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("spacing", "degrees"), [((1.1, 0.8, 3.1), 0), ((0.7, 0.9, 2.5), -15), ((0.3, 1.9, 1.0), 4)])
def test_a_grid_onto_one_with_parallel_slices(
    order: Literal[0, 1], spacing: tuple[float, float, float], degrees: float
) -> None:
    """Computed one axis after the other; the result is the same."""
    source = leaning(15, 1, (8, 3, -20))
    affine = lps_affine(spacing, (-29.0, 11.0, 103.0), rotation(8, 3, -20))
    affine[:3, 2] += np.tan(np.radians(degrees)) * affine[:3, 0]
    target = Geometry((6, 5, 4), LPS_TO_RAS @ affine)
    array = np.random.default_rng(0).integers(0, 300, STACK).astype(np.int16)
    got = resampled(array, source, target, order=order, fill=-7)
    expected = at_points(array, source, target, order, -7)
    assert got.dtype == (np.int16 if order == 0 else np.float32)
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert (got == -7).any()
    assert (got != -7).any()


def test_a_resampled_ramp_in_world_coordinates_stays_that_ramp() -> None:
    source, target = leaning(-5, 0), Geometry((5, 6, 3), leaning(0, 0).affine).cropped((1, 2, 1), (4, 4, 2))
    ramp = np.array([0.3, -1.7, 2.2])
    places = np.stack(np.meshgrid(*map(np.arange, STACK), indexing="ij"), -1)
    array = source.voxel_to_world(places) @ ramp
    got = resampled(array, source, target, order=1, fill=np.nan)
    wanted = target.voxel_to_world(np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1)) @ ramp
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_the_same_grid_gives_the_same_values() -> None:
    array = np.random.default_rng(0).integers(-500, 500, STACK).astype(np.int16)
    grid = leaning(15, 0, (33.3, 21.7, 5.1))
    assert np.array_equal(resampled(array, grid, grid, order=1, fill=0), array)


def test_edges_worked_by_hand() -> None:
    """A target of half the spacing, a quarter voxel in: centres at -0.75, -0.25, 0.25, ... 2.25, 2.75 of 0 to 2."""
    source = Geometry((3, 1, 1), np.eye(4))
    affine = np.diag([0.5, 1, 1, 1])
    affine[0, 3] = -0.75
    array = np.array([10.0, 20.0, 40.0]).reshape(3, 1, 1)
    got = resampled(array, source, Geometry((8, 1, 1), affine), order=1, fill=-1).ravel()
    assert got.tolist() == [-1, 10, 12.5, 17.5, 25, 35, 40, -1]
    got = resampled(array, source, Geometry((8, 1, 1), affine), order=0, fill=-1).ravel()
    assert got.tolist() == [-1, 10, 10, 20, 20, 40, 40, -1]


@pytest.mark.parametrize("degrees", [5, -5, 15, -15])
@pytest.mark.parametrize("along", [0, 1])
class TestStraightGrid:
    def test_slices_keep_their_plane_and_their_pixels(self, degrees: float, along: int) -> None:
        stored = leaning(degrees, along)
        grid = straight_grid(stored)
        assert not grid.sheared
        np.testing.assert_allclose(grid.affine[:3, :2], stored.affine[:3, :2], atol=1e-12)
        np.testing.assert_allclose(grid.spacing_mm, (0.7, 0.9, 2.5), atol=1e-9)
        normal = grid.directions[:, 2]
        for k in range(STACK[2]):
            here, there = (g.voxel_to_world((2, 3, k)) @ normal for g in (stored, grid))
            assert here == pytest.approx(there, abs=1e-9)
        # The first slice's pixels are pixels of the grid.
        start = grid.world_to_voxel(stored.voxel_to_world((0, 0, 0)))
        np.testing.assert_allclose(start, np.round(start), atol=1e-9)

    def test_every_stored_voxel_is_inside_and_no_pixel_more_than_needed(self, degrees: float, along: int) -> None:
        stored = leaning(degrees, along)
        grid = straight_grid(stored)
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(STACK) - 1)
        inside = grid.world_to_voxel(stored.voxel_to_world(corners))
        assert inside.min() >= -1e-9
        assert (inside <= np.array(grid.shape) - 1 + 1e-9).all()
        # 4 steps of 2.5 mm lean by their tangent; the other axis stays as it is.
        grown = [0, 0, 0]
        grown[along] = int(np.ceil(4 * 2.5 * np.tan(np.radians(abs(degrees))) / (0.7, 0.9)[along]))
        assert np.subtract(grid.shape, STACK).tolist() == grown

    def test_the_angle_is_told(self, degrees: float, along: int) -> None:
        assert tilt_degrees(leaning(degrees, along)) == pytest.approx(abs(degrees), abs=1e-9)
        assert tilt_degrees(straight_grid(leaning(degrees, along))) == pytest.approx(0, abs=1e-6)


def test_a_straight_stack_s_grid_is_its_own() -> None:
    for angles in ((0, 0, 0), (35, 20, -50), (0.01, 0, 89.9)):
        grid = leaning(0, 0, angles)
        assert straight_grid(grid).difference(grid, 1e-9) is None


def test_a_left_handed_stack_keeps_its_direction() -> None:
    affine = leaning(5, 0).affine @ np.diag([1, 1, -1, 1])
    grid = straight_grid(Geometry(STACK, affine))
    assert np.linalg.det(grid.affine) * np.linalg.det(affine) > 0
    assert not grid.sheared
