from __future__ import annotations

import itertools
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel import affines as nib_affines
from nibabel import orientations as nio

from volseg.errors import GeometryError
from volseg.geometry import (
    ORIENTATIONS,
    SAME_GRID_MM,
    AxisMap,
    Floats,
    Geometry,
    check_orientation,
    orientation_from_affine,
    ras_from_lps,
    spacing_from_affine,
)

SHAPE = (4, 3, 5)
SPACING = (1.5, 0.75, 4.0)
ORIGIN = (-31.5, 12.25, 100.0)


def turn(x: float, y: float, z: float) -> Floats:
    """(3, 3) rotation by angles in degrees about x, then y, then z."""
    a, b, c = np.radians([x, y, z])
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.asarray(np.array(about_z) @ np.array(about_y) @ np.array(about_x))


def affine_of(orientation: str, rotation: npt.ArrayLike | None = None, shear: float = 0.0) -> Floats:
    """Affine whose axes grow as the letters say, made from their meaning, then turned in space and sheared."""
    towards = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    directions = np.array([towards[letter] for letter in orientation], dtype=float).T
    if rotation is not None:
        directions = np.asarray(rotation) @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING
    affine[:3, 2] += shear * affine[:3, 1]
    affine[:3, 3] = ORIGIN
    return affine


#: Straight, oblique, sheared as by a gantry's tilt, and with that also oblique.
KINDS = {
    "straight": (None, 0.0),
    "oblique": (turn(12, -20, 8), 0.0),
    "sheared": (None, 0.3),
    "oblique and sheared": (turn(-9, 14, 21), 0.2),
}


#: Each orientation straight, and turned and sheared at once; a few are turned or sheared alone.
MATRIX = [
    (orientation, kind)
    for number, orientation in enumerate(ORIENTATIONS)
    for kind in KINDS
    if kind in ("straight", "oblique and sheared") or number % 7 == 0
]


@pytest.fixture(params=MATRIX, ids="-".join)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    orientation, kind = request.param
    return Geometry(SHAPE, affine_of(orientation, *KINDS[kind]))


@st.composite
def affines(draw: st.DrawFn) -> Floats:
    """Any affine that spans a volume: of either hand, oblique, sheared, anisotropic."""
    numbers = st.floats(-1, 1, allow_subnormal=False)
    matrix = draw(hnp.arrays(np.float64, (3, 3), elements=numbers))
    lengths = np.linalg.norm(matrix, axis=0)
    assume(lengths.min() > 0.1)
    assume(abs(np.linalg.det(matrix / lengths)) > 0.05)
    affine = np.eye(4)
    affine[:3, :3] = matrix / lengths * draw(hnp.arrays(np.float64, 3, elements=st.floats(0.2, 8)))
    affine[:3, 3] = draw(hnp.arrays(np.float64, 3, elements=st.floats(-500, 500)))
    return affine


orientations = st.sampled_from(ORIENTATIONS)
shapes = st.tuples(*(st.integers(1, 6),) * 3)


# Orientation


def test_there_are_48_orientations() -> None:
    assert len(ORIENTATIONS) == 48
    pairs = ({"L", "R"}, {"P", "A"}, {"I", "S"})
    every = {"".join(o) for o in itertools.product("LRPAIS", repeat=3) if all(pair & set(o) for pair in pairs)}
    assert set(ORIENTATIONS) == every


def test_orientation_of_every_kind_is_the_one_that_made_it(geometry: Geometry, request: Any) -> None:
    made_of, _ = request.node.callspec.params["geometry"]
    assert geometry.orientation == made_of
    assert geometry.orientation == "".join(nib.aff2axcodes(geometry.affine))


@given(affine=affines())
def test_orientation_as_nibabel_says(affine: Floats) -> None:
    assert orientation_from_affine(affine) == "".join(nib.aff2axcodes(affine))
    assert orientation_from_affine(affine) in ORIENTATIONS


def test_of_two_axes_nearest_to_one_direction_the_nearer_has_it() -> None:
    # Columns i (0.49, -0.59, 0.64) and j (0.41, -0.49, -0.77) both lie nearest to the vertical, j nearer.
    affine = np.eye(4)
    affine[:3, :3] = turn(-90, -40, -50)
    assert orientation_from_affine(affine) == "PIR" == "".join(nib.aff2axcodes(affine))


@pytest.mark.parametrize("wrong", ["", "RA", "RASL", "ras", "RRS", "RLS", "XAS"])
def test_what_is_no_orientation(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not three axcodes"):
        check_orientation(wrong)
    with pytest.raises(ValueError, match="is not three axcodes"):
        AxisMap.between("RAS", wrong)
    with pytest.raises(ValueError, match="is not three axcodes"):
        AxisMap.between(wrong, "RAS")


# AxisMap


def test_a_map_by_hand() -> None:
    axes = AxisMap.between("LPS", "SAR")
    assert (axes.order, axes.flipped) == ((2, 1, 0), (False, True, True))
    array = np.arange(60).reshape(SHAPE)
    assert axes.apply(array).shape == (5, 3, 4)
    assert axes.apply(array)[4, 0, 1] == array[2, 2, 4]


@given(source=orientations, target=orientations, shape=shapes)
def test_apply_as_nibabel_does(source: str, target: str, shape: tuple[int, int, int]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    transform = nio.ornt_transform(nio.axcodes2ornt(tuple(source)), nio.axcodes2ornt(tuple(target)))
    np.testing.assert_array_equal(AxisMap.between(source, target).apply(array), nio.apply_orientation(array, transform))


@given(source=orientations, target=orientations, shape=shapes)
def test_a_map_and_its_inverse(source: str, target: str, shape: tuple[int, int, int]) -> None:
    axes = AxisMap.between(source, target)
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    np.testing.assert_array_equal(axes.inverse().apply(axes.apply(array)), array)
    assert axes.inverse().inverse() == axes
    assert axes.inverse() == AxisMap.between(target, source)


@given(source=orientations, target=orientations, shape=shapes, data=st.data())
def test_matrix_says_where_a_voxel_came_from(
    source: str, target: str, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    axes = AxisMap.between(source, target)
    array = np.arange(np.prod(shape)).reshape(shape)
    turned = axes.apply(array)
    index = tuple(data.draw(st.integers(0, size - 1)) for size in turned.shape)
    came_from = axes.matrix(shape) @ [*index, 1]
    assert turned[index] == array[tuple(came_from[:3].astype(int))]
    assert came_from[3] == 1


def test_apply_is_a_view_and_leaves_channels_in_front() -> None:
    array = np.arange(120).reshape(2, *SHAPE)
    turned = AxisMap.between("RAS", "ILP").apply(array)
    assert turned.shape == (2, 5, 4, 3)
    assert np.shares_memory(turned, array)
    np.testing.assert_array_equal(turned[1], AxisMap.between("RAS", "ILP").apply(array[1]))


def test_reversed_axes_is_the_order_of_simpleitk() -> None:
    array = np.arange(60).reshape(SHAPE)
    np.testing.assert_array_equal(AxisMap.reversed_axes().apply(array), array.T)
    assert AxisMap.reversed_axes().inverse() == AxisMap.reversed_axes()


# Geometry


def test_numbers_by_hand() -> None:
    geometry = Geometry(SHAPE, affine_of("PSL"))
    assert geometry.spacing_mm == SPACING
    assert geometry.extent_mm == (6.0, 2.25, 20.0)
    assert geometry.voxel_volume_ml == pytest.approx(0.0045)
    assert geometry.orientation == "PSL"
    assert not geometry.sheared
    np.testing.assert_array_equal(geometry.directions, [[0, 0, -1], [-1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(geometry.voxel_to_world((1, 2, 3)), [-31.5 - 12, 12.25 - 1.5, 100 + 1.5])
    np.testing.assert_allclose(geometry.world_to_voxel((-43.5, 10.75, 101.5)), [1, 2, 3])


def test_voxel_to_world_is_nibabel_s_and_goes_back(geometry: Geometry) -> None:
    points = np.array([[0, 0, 0], [3, 2, 4], [0.5, -1, 7]])
    world = geometry.voxel_to_world(points)
    np.testing.assert_allclose(world, nib_affines.apply_affine(geometry.affine, points))
    np.testing.assert_allclose(geometry.world_to_voxel(world), points, atol=1e-9)
    np.testing.assert_allclose(geometry.voxel_to_world(points[1]), world[1])


def test_spacing_is_nibabel_s(geometry: Geometry) -> None:
    np.testing.assert_allclose(geometry.spacing_mm, nib_affines.voxel_sizes(geometry.affine))
    np.testing.assert_allclose(spacing_from_affine(geometry.affine), nib_affines.voxel_sizes(geometry.affine))


def test_volume_of_a_voxel_is_that_of_its_parallelepiped(geometry: Geometry) -> None:
    # A shear moves slices over each other: the volume stays the product of the unsheared spacings.
    assert geometry.voxel_volume_ml == pytest.approx(1.5 * 0.75 * 4.0 / 1000)


@pytest.mark.parametrize(("kind", "sheared"), [(kind, "sheared" in kind) for kind in KINDS])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIR"])
def test_sheared(kind: str, sheared: bool, orientation: str) -> None:
    assert Geometry(SHAPE, affine_of(orientation, *KINDS[kind])).sheared is sheared


def test_rounding_to_32_bits_is_no_shear() -> None:
    assert not Geometry(SHAPE, affine_of("LPS", turn(33, 47, -12)).astype(np.float32)).sheared


def test_shear_has_a_threshold() -> None:
    assert not Geometry(SHAPE, affine_of("RAS", shear=0.9e-4 * 4 / 0.75)).sheared
    assert Geometry(SHAPE, affine_of("RAS", shear=1.1e-4 * 4 / 0.75)).sheared


def test_turned_leaves_every_voxel_in_its_place(geometry: Geometry) -> None:
    for target in ("RAS", "LPS", "SAR", "IPL", "ALI", "PSR"):
        axes = AxisMap.between(geometry.orientation, target)
        turned = geometry.turned(axes)
        assert turned.orientation == target
        # An array that holds its own voxels' places, turned, must hold those of the turned geometry.
        indices = np.moveaxis(np.indices(SHAPE), 0, -1)
        places = np.moveaxis(geometry.voxel_to_world(indices), -1, 0)
        expected = turned.voxel_to_world(np.moveaxis(np.indices(turned.shape), 0, -1))
        np.testing.assert_allclose(np.moveaxis(axes.apply(places), 0, -1), expected, atol=1e-9)
        assert turned.turned(axes.inverse()).same_grid(geometry, 1e-9)


def test_the_order_of_another_grid_s_voxels_is_found_from_the_affines(geometry: Geometry) -> None:
    """Also where axes are so oblique that their letters say another order."""
    for order in itertools.permutations(range(3)):
        for flipped in itertools.product((False, True), repeat=3):
            axes = AxisMap((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))
            found = geometry.axes_onto(geometry.turned(axes))
            assert found == axes
            assert found.changes_nothing is (order == (0, 1, 2) and not any(flipped))


def test_a_grid_of_other_directions_has_no_order_to_find() -> None:
    grid = Geometry(SHAPE, affine_of("RAS"))
    assert grid.axes_onto(Geometry(SHAPE, affine_of("RAS", turn(0, 0, 60)))) is None
    doubled = affine_of("RAS")
    doubled[:, 2] *= 2
    assert grid.axes_onto(Geometry(SHAPE, doubled)) is None


@pytest.mark.parametrize("target", ORIENTATIONS)
def test_turned_is_nibabel_s_as_reoriented(target: str) -> None:
    geometry = Geometry(SHAPE, affine_of("PIR", turn(12, -20, 8)))
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(SHAPE), geometry.affine)
    transform = nio.ornt_transform(nio.io_orientation(image.affine), nio.axcodes2ornt(tuple(target)))
    theirs = image.as_reoriented(transform)
    axes = AxisMap.between("PIR", target)
    np.testing.assert_allclose(geometry.turned(axes).affine, theirs.affine, atol=1e-9)
    assert geometry.turned(axes).shape == theirs.shape


def test_cropped_keeps_the_block_in_its_place(geometry: Geometry) -> None:
    block = geometry.cropped((1, 0, 2), (2, 3, 1))
    assert block.shape == (2, 3, 1)
    np.testing.assert_allclose(block.voxel_to_world((0, 0, 0)), geometry.voxel_to_world((1, 0, 2)))
    np.testing.assert_allclose(block.voxel_to_world((1, 2, 0)), geometry.voxel_to_world((2, 2, 2)))


def test_a_negative_start_pads() -> None:
    padded = Geometry(SHAPE, affine_of("RAS")).cropped((-2, 0, -1), (8, 3, 7))
    np.testing.assert_allclose(padded.voxel_to_world((0, 0, 0)), [-31.5 - 3, 12.25, 100 - 4])
    assert padded.cropped((2, 0, 1), SHAPE).same_grid(Geometry(SHAPE, affine_of("RAS")))


def test_resized_by_hand() -> None:
    # Along i: 4 voxels of 1.5 mm from edge -0.75 to 5.25; 3 of 2 mm have their first centre at -0.75 + 1.
    resized = Geometry(SHAPE, affine_of("RAS")).resized((3, 6, 4))
    assert resized.shape == (3, 6, 4)
    assert resized.spacing_mm == pytest.approx((2.0, 0.375, 5.0))
    np.testing.assert_allclose(resized.voxel_to_world((0, 0, 0)), np.add(ORIGIN, [0.25, -0.1875, 0.5]))
    np.testing.assert_allclose(resized.voxel_to_world((2, 5, 3)), np.add(ORIGIN, [4.25, 1.6875, 15.5]))


def test_resized_leaves_the_edges_where_they_are(geometry: Geometry) -> None:
    resized = geometry.resized((7, 2, 9))
    for corner in itertools.product((0, 1), repeat=3):
        ours = np.array(corner) * np.array(resized.shape) - 0.5
        theirs = np.array(corner) * np.array(geometry.shape) - 0.5
        np.testing.assert_allclose(resized.voxel_to_world(ours), geometry.voxel_to_world(theirs), atol=1e-9)
    assert resized.resized(SHAPE).same_grid(geometry, 1e-9)
    assert resized.orientation == geometry.orientation
    np.testing.assert_allclose(resized.extent_mm, geometry.extent_mm)


# Same grid


def test_a_grid_is_the_same_as_itself_in_32_bits(geometry: Geometry) -> None:
    assert geometry.same_grid(geometry)
    assert geometry.same_grid(Geometry(SHAPE, geometry.affine.astype(np.float32)))


def test_a_shift_is_measured_in_mm(geometry: Geometry) -> None:
    for shift, same in ((0.9 * SAME_GRID_MM, True), (1.1 * SAME_GRID_MM, False)):
        affine = geometry.affine.copy()
        affine[1, 3] += shift
        assert geometry.same_grid(Geometry(SHAPE, affine)) is same
    assert geometry.same_grid(Geometry(SHAPE, affine), tolerance_mm=0.01)


def test_a_difference_of_spacing_counts_where_it_is_largest() -> None:
    affine = affine_of("RAS")
    affine[0, 0] += 0.0004
    there = Geometry((3, 1, 1), affine_of("RAS")), Geometry((3, 1, 1), affine)
    assert there[0].same_grid(there[1])  # 2 x 0.0004 mm at the last voxel
    assert there[0].cropped((0, 0, 0), (4, 1, 1)).difference(there[1].cropped((0, 0, 0), (4, 1, 1))) == (
        "voxel centres up to 0.0012 mm apart"
    )


def test_a_turned_or_differently_shaped_grid_is_another() -> None:
    geometry = Geometry(SHAPE, affine_of("RAS"))
    assert not geometry.same_grid(geometry.turned(AxisMap.between("RAS", "LAS")))
    assert geometry.difference(geometry.cropped((0, 0, 0), (4, 3, 4))) == "shape (4, 3, 5) against (4, 3, 4)"
    assert geometry.difference(geometry) is None


@given(affine=affines(), other=affines(), shape=shapes)
def test_the_difference_is_the_largest_over_all_voxels(
    affine: Floats, other: Floats, shape: tuple[int, int, int]
) -> None:
    one, two = Geometry(shape, affine), Geometry(shape, other)
    indices = np.moveaxis(np.indices(shape), 0, -1)
    apart = float(np.linalg.norm(one.voxel_to_world(indices) - two.voxel_to_world(indices), axis=-1).max())
    assert one.same_grid(two, apart + 1e-6)
    assert not one.same_grid(two, apart - 1e-6)


# What is refused, and what is kept


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, -1, 5), (4, 3), (4, 3, 5, 1)])
def test_a_shape_that_is_no_volume(shape: Any) -> None:
    with pytest.raises(GeometryError, match="is not three positive sizes") as caught:
        Geometry(shape, np.eye(4))
    assert caught.value.code == "not-3d"


def changed(row: int, column: int, value: float) -> Floats:
    affine = affine_of("RAS")
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (changed(0, 0, np.nan), "NaN or infinite"),
        (changed(2, 3, np.inf), "NaN or infinite"),
        (changed(2, 3, -2e9), "beyond 1000 km"),
        (changed(0, 0, 1e300), "beyond 1000 km"),
        (np.zeros((4, 4)), "last row"),
        (np.diag([0.0, 0.0, 0.0, 1.0]), "spacing 0 x 0 x 0 mm"),
        (changed(2, 2, 0.0), "spacing 1.5 x 0.75 x 0 mm"),
        (changed(3, 0, 1.0), r"last row is \[1.0, 0.0, 0.0, 1.0\]"),
        (np.array([[1.0, 2, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "spans no volume"),
        (np.eye(3), r"shape \(3, 3\) is not 4 x 4"),
    ],
)
def test_an_affine_that_places_no_voxels(affine: Floats, message: str) -> None:
    with pytest.raises(GeometryError, match=message) as caught:
        Geometry(SHAPE, affine)
    assert caught.value.code == "bad-affine"


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_very_small_and_very_large_voxels_are_no_error(scale: float) -> None:
    affine = affine_of("LPS", turn(12, -20, 8))
    affine[:3, :3] *= scale
    assert Geometry(SHAPE, affine).orientation == "LPS"


def test_a_geometry_keeps_its_own_affine() -> None:
    affine = affine_of("RAS")
    geometry = Geometry(SHAPE, affine)
    affine[0, 3] = 0
    assert geometry.affine[0, 3] == ORIGIN[0]
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 1


# LPS


def test_ras_from_lps_by_hand() -> None:
    lps = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 0, 1]], dtype=float)
    np.testing.assert_array_equal(
        ras_from_lps(lps), [[-1, -2, -3, -4], [-5, -6, -7, -8], [9, 10, 11, 12], [0, 0, 0, 1]]
    )
    np.testing.assert_array_equal(ras_from_lps([1, 2, 3]), [-1, -2, 3])
    np.testing.assert_array_equal(ras_from_lps([[1, 2, 3], [4, 5, 6]]), [[-1, -2, 3], [-4, -5, 6]])


def test_ras_from_lps_is_its_own_inverse(geometry: Geometry) -> None:
    np.testing.assert_array_equal(ras_from_lps(ras_from_lps(geometry.affine)), geometry.affine)


def test_an_lps_identity_is_oriented_lps() -> None:
    assert orientation_from_affine(ras_from_lps(np.eye(4))) == "LPS"
