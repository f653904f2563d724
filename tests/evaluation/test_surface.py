from __future__ import annotations

import itertools
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from volseg.evaluation.surface import SurfaceDistances, surface_distances, surface_points
from volseg.geometry import ORIENTATIONS, AxisMap, Floats, Geometry

Mask = npt.NDArray[np.bool_]
SPACING = (1.5, 2.0, 4.0)
SHAPE = (7, 6, 5)
GRID = Geometry(SHAPE, np.diag([*SPACING, 1.0]))


def block(start: tuple[int, int, int], stop: tuple[int, int, int]) -> Mask:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def between(predicted: Mask, reference: Mask, grid: Geometry = GRID) -> SurfaceDistances:
    return surface_distances(surface_points(predicted, grid), surface_points(reference, grid))


def oblique(affine: npt.ArrayLike) -> Floats:
    """Turned about an odd axis, and moved."""
    a, b = np.radians(20), np.radians(-35)
    turn = np.eye(4)
    turn[:3, :3] = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    turn[:3, 3] = [-117.3, 42.1, 903.4]
    return np.asarray(turn @ np.asarray(affine))


def test_the_surface_of_a_block_is_all_but_its_inside() -> None:
    mask = block((1, 1, 0), (6, 5, 3))  # 5 x 4 x 3: the inside is 3 x 2 x 1
    points = surface_points(mask, GRID)
    assert len(points) == 60 - 6
    inside = {(i * 1.5, j * 2.0, 4.0) for i in (2, 3, 4) for j in (2, 3)}
    everything = {(i * 1.5, j * 2.0, k * 4.0) for i, j, k in np.argwhere(mask)}
    assert {tuple(point) for point in points} == everything - inside


def test_the_border_of_the_scan_is_a_surface() -> None:
    full = np.ones((3, 3, 3), dtype=bool)
    assert len(surface_points(full, Geometry((3, 3, 3), np.eye(4)))) == 26


@pytest.mark.parametrize(("axis", "spacing"), [(0, 1.5), (1, 2.0), (2, 4.0)])
def test_two_voxels_are_as_far_apart_as_the_spacing_says(axis: int, spacing: float) -> None:
    one, other = [1, 1, 1], [1, 1, 1]
    other[axis] = 3
    a, b = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    a[tuple(one)] = b[tuple(other)] = True
    distances = between(a, b)
    assert distances.hd95_mm == pytest.approx(2 * spacing)
    assert distances.nsd(2 * spacing) == 1
    assert distances.nsd(2 * spacing - 0.01) == 0


def test_a_plate_moved_by_one_slice() -> None:
    distances = between(block((0, 0, 1), (7, 6, 2)), block((0, 0, 2), (7, 6, 3)))
    np.testing.assert_allclose(distances.from_predicted_mm, np.full(42, 4.0))
    np.testing.assert_allclose(distances.from_reference_mm, np.full(42, 4.0))


def test_hd95_is_the_larger_direction_interpolated_linearly() -> None:
    distances = SurfaceDistances(np.arange(11.0), np.array([0.0, 1.0]))
    assert distances.hd95_mm == pytest.approx(9.5)  # rank 0.95 * 10 of 0..10; the other direction gives 0.95
    assert SurfaceDistances(distances.from_reference_mm, distances.from_predicted_mm).hd95_mm == pytest.approx(9.5)


def test_nsd_counts_both_surfaces_and_the_tolerance_itself() -> None:
    distances = SurfaceDistances(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0]))
    assert distances.nsd(1.0) == pytest.approx(3 / 5)
    assert distances.nsd(0.99) == pytest.approx(1 / 5)
    assert distances.nsd(0.0) == pytest.approx(1 / 5)


def test_equal_masks() -> None:
    mask = block((1, 2, 1), (5, 5, 4))
    assert between(mask, mask).hd95_mm == 0
    assert between(mask, mask).nsd(0) == 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_changes_nothing(orientation: str) -> None:
    predicted, reference = block((1, 1, 1), (4, 5, 4)), block((2, 1, 0), (6, 4, 3))
    expected = between(predicted, reference)
    axes = AxisMap.between("RAS", orientation)
    found = between(axes.apply(predicted), axes.apply(reference), GRID.turned(axes))
    assert found.hd95_mm == pytest.approx(expected.hd95_mm)
    assert found.nsd(2.0) == expected.nsd(2.0)


def test_a_tolerance_of_one_voxel_holds_on_an_oblique_grid_in_32_bits() -> None:
    grid = Geometry(SHAPE, oblique(np.diag([*SPACING, 1.0])).astype(np.float32))
    predicted, reference = block((1, 1, 1), (4, 4, 4)), block((2, 1, 1), (5, 4, 4))
    for tolerance in (1.5, 0.0):
        assert between(predicted, reference, grid).nsd(tolerance) == between(predicted, reference).nsd(tolerance)
    assert between(predicted, reference, grid).nsd(1.5) == 1


def test_distances_on_a_sheared_grid_are_those_in_space() -> None:
    sheared = np.eye(4)
    sheared[0, 2] = 3.0  # a step along k goes 1 mm up and 3 mm to the right
    a, b = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    a[0, 1, 1] = True
    b[0, 1, 2] = b[4, 1, 0] = True  # sqrt(10) mm away; and 4 - 3 = 1 mm right, 1 mm down: sqrt(2) mm away
    grid = Geometry(SHAPE, sheared)
    np.testing.assert_allclose(between(a, b, grid).from_predicted_mm, [np.sqrt(2)])
    np.testing.assert_allclose(sorted(between(a, b, grid).from_reference_mm), [np.sqrt(2), np.sqrt(10)])


def slow(predicted: Mask, reference: Mask, affine: Floats) -> tuple[list[float], list[float]]:
    """The obvious way: every voxel's six neighbours, every pair of surface voxels."""

    def surface(mask: Mask) -> list[Floats]:
        points = []
        for index in itertools.product(*map(range, mask.shape)):
            steps = [np.eye(3, dtype=int)[axis] * sign for axis in range(3) for sign in (-1, 1)]
            neighbours = [tuple(np.add(index, step)) for step in steps]
            outside = [
                any(not 0 <= n < size for n, size in zip(at, mask.shape, strict=True)) or not mask[at]
                for at in neighbours
            ]
            if mask[index] and any(outside):
                points.append(affine[:3, :3] @ index + affine[:3, 3])
        return points

    ours, theirs = surface(predicted), surface(reference)
    there = [min(float(np.linalg.norm(a - b)) for b in theirs) for a in ours]
    back = [min(float(np.linalg.norm(a - b)) for a in ours) for b in theirs]
    return there, back


masks = hnp.arrays(np.bool_, (4, 3, 5))


@given(predicted=masks, reference=masks, turned=st.booleans())
def test_as_the_slow_way(predicted: Mask, reference: Mask, turned: bool) -> None:
    if not (predicted.any() and reference.any()):
        return
    affine = oblique(np.diag([*SPACING, 1.0])) if turned else np.diag([*SPACING, 1.0])
    there, back = slow(predicted, reference, affine)
    found = between(predicted, reference, Geometry((4, 3, 5), affine))
    np.testing.assert_allclose(found.from_predicted_mm, there, atol=1e-9)
    np.testing.assert_allclose(found.from_reference_mm, back, atol=1e-9)


def test_as_distance_transforms() -> None:
    noise = np.random.default_rng(3)
    predicted, reference = (ndimage.gaussian_filter(noise.random((14, 11, 9)), 1.5) > 0.5 for _ in range(2))
    found = between(predicted, reference, Geometry((14, 11, 9), np.diag([*SPACING, 1.0])))
    ours, theirs = (mask & ~ndimage.binary_erosion(mask) for mask in (predicted, reference))
    np.testing.assert_allclose(
        found.from_predicted_mm, ndimage.distance_transform_edt(~theirs, sampling=SPACING)[ours], atol=1e-9
    )
    np.testing.assert_allclose(
        found.from_reference_mm, ndimage.distance_transform_edt(~ours, sampling=SPACING)[theirs], atol=1e-9
    )


def test_as_monai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import torch
        from monai.metrics.hausdorff_distance import compute_hausdorff_distance
        from monai.metrics.surface_dice import compute_surface_dice

        torch.set_num_threads(1)
        noise = np.random.default_rng(5)
        for sigma in (1.0, 1.6):
            predicted, reference = (ndimage.gaussian_filter(noise.random((13, 12, 9)), sigma) > 0.5 for _ in range(2))
            found = between(predicted, reference, Geometry((13, 12, 9), np.diag([*SPACING, 1.0])))
            a, b = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, reference))
            spacing = list(SPACING)
            theirs = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=spacing)
            assert found.hd95_mm == pytest.approx(float(theirs), abs=1e-5)
            for tolerance in (0.5, 1.6, 3.0):
                nsd = compute_surface_dice(a, b, [tolerance], include_background=True, spacing=spacing)
                assert found.nsd(tolerance) == pytest.approx(float(nsd), abs=1e-6)
                assert 0 < float(nsd) < 1
