from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from volseg.errors import GeometryError
from volseg.loaders.dicom.stack import Plane, stack_planes


def planes(positions: list[tuple[float, float, float]], **changes: Any) -> list[Plane]:
    """Axial planes of 4 columns and 3 rows."""
    common: dict[str, Any] = {
        "row": (1.0, 0.0, 0.0),
        "column": (0.0, 1.0, 0.0),
        "spacing_mm": (0.5, 0.75),
        "size": (4, 3),
        "frame": "1.2.3",
        **changes,
    }
    return [Plane(name=f"s{index}", position=position, **common) for index, position in enumerate(positions)]


def upright(*heights: float) -> list[Plane]:
    return planes([(10.0, 20.0, height) for height in heights])


def code_of(stack: list[Plane]) -> tuple[str, str]:
    with pytest.raises(GeometryError) as caught:
        stack_planes(stack)
    return caught.value.code, caught.value.reason


def test_hand_worked_axial_stack() -> None:
    result = stack_planes(upright(6.0, 2.0, 4.0))
    assert result.order == (1, 2, 0)
    assert result.geometry.shape == (4, 3, 3)
    # LPS to RAS: x and y change their sign.
    assert_allclose(
        result.geometry.affine,
        np.array([[-0.5, 0, 0, -10], [0, -0.75, 0, -20], [0, 0, 2, 2], [0, 0, 0, 1]]),
        atol=1e-12,
    )
    assert result.geometry.orientation == "LPS"
    assert result.notes == ()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_order_of_the_files_changes_nothing(order: tuple[int, ...]) -> None:
    stack = upright(0.0, 1.5, 3.0, 4.5)
    shuffled = [stack[index] for index in order]
    result = stack_planes(shuffled)
    assert [shuffled[index].name for index in result.order] == ["s0", "s1", "s2", "s3"]
    assert_allclose(result.geometry.affine, stack_planes(stack).geometry.affine, rtol=0, atol=0)


def test_ascends_along_row_times_column_also_when_that_is_down() -> None:
    # Row to the left of the picture: row x column points to the feet.
    result = stack_planes(planes([(0, 0, 0.0), (0, 0, 2.0)], row=(-1.0, 0.0, 0.0)))
    assert result.order == (1, 0)
    assert_allclose(result.geometry.affine[:3, 2], [0, 0, -2])
    assert result.geometry.orientation == "RPI"


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.floats(0.3, 8),
    count=st.integers(2, 12),
    decimals=st.integers(4, 9),
)
def test_any_oblique_stack_comes_out_as_it_was_made(
    angles: tuple[float, float, float], spacing: float, count: int, decimals: int
) -> None:
    from tests.helpers.dicom_files import rotation

    turn = rotation(*angles)
    positions = np.round([np.array([5.0, -3.0, 8.0]) + k * spacing * turn[:, 2] for k in range(count)], decimals)
    made = planes([tuple(position) for position in positions.tolist()], row=tuple(turn[:, 0]), column=tuple(turn[:, 1]))
    result = stack_planes(made[::-1])
    expected = np.eye(4)
    expected[:3, :3] = turn * [0.5, 0.75, spacing]
    expected[:3, 3] = [5, -3, 8]
    lps_to_ras = np.diag([-1.0, -1, 1, 1])
    assert_allclose(result.geometry.affine, lps_to_ras @ expected, atol=3e-4)
    assert result.order == tuple(range(count))[::-1]


def test_rounding_is_silent_and_a_little_more_is_noted() -> None:
    assert stack_planes(upright(0, 3.01, 6)).notes == ()
    assert "evened out" in stack_planes(upright(0, 3.011, 6)).notes[0]
    assert "evened out" in stack_planes(upright(0, 3.1, 6)).notes[0]


def test_uneven_by_more_is_refused() -> None:
    code, reason = code_of(upright(0, 3.101, 6, 9))
    assert code == "varying-spacing"
    assert "s1" in reason


def test_uneven_by_more_than_five_percent_is_refused_where_slices_are_thin() -> None:
    # 5 % of 1 mm is less than 0.1 mm.
    assert "evened out" in stack_planes(upright(0, 1.05, 2, 3)).notes[0]
    assert code_of(upright(0, 1.06, 2, 3))[0] == "varying-spacing"


def test_evening_out_keeps_the_ends() -> None:
    affine = stack_planes(upright(0, 3.1, 6.0, 9.0)).geometry.affine
    assert_allclose(affine[:3, 2], [0, 0, 3])
    assert affine[2, 3] == 0


@pytest.mark.parametrize(
    ("heights", "where"),
    [
        ((0, 2, 4, 8, 10), "1 between s2 and s3"),
        ((0, 2, 8, 10, 12), "2 between s1 and s2"),
        ((0, 2, 6), "1 between s1 and s2"),
        ((0, 4, 6), "1 between s0 and s1"),
        ((0, 2.004, 4, 7.99, 10), "1 between s2 and s3"),
    ],
)
def test_a_gap_is_named(heights: tuple[float, ...], where: str) -> None:
    code, reason = code_of(upright(*heights))
    assert code == "missing-slice"
    assert where in reason


def test_many_gaps_are_counted() -> None:
    heights = [height for height in range(40) if height % 8 != 4]
    code, reason = code_of(upright(*heights))
    assert code == "missing-slice"
    assert "5 absent" in reason
    assert "2 more places" in reason


def test_distances_that_are_no_multiple_are_varying() -> None:
    assert code_of(upright(0, 1, 2, 4.5))[0] == "varying-spacing"


@pytest.mark.parametrize(
    ("heights", "code", "said"),
    [
        ((0, 5, 10, 15, 22, 29), "varying-spacing", "2 blocks, 4 slices every 5 mm from s0 to s3, 3 slices every 7 mm"),
        ((0, 5, 10, 15, 25, 35), "missing-slice", "2 blocks, 4 slices every 5 mm from s0 to s3, 3 slices every 10 mm"),
        # A step of its own between the two.
        ((0, 5, 10, 16, 23, 30), "varying-spacing", "2 blocks, 3 slices every 5 mm from s0 to s2, 3 slices every 7 mm"),
    ],
)
def test_blocks_of_two_spacings_are_both_named(heights: tuple[float, ...], code: str, said: str) -> None:
    found, reason = code_of(upright(*heights))
    assert found == code
    assert said in reason
    assert "give the files of one block" in reason


@pytest.mark.parametrize("heights", [(0, 5, 10, 18, 23, 28, 33), (0, 5, 10, 20, 25, 30), (0, 5, 10, 17, 19, 24)])
def test_other_uneven_slices_are_no_blocks(heights: tuple[float, ...]) -> None:
    # Two halves of one spacing with an odd step between, and steps without any order.
    assert "2 blocks" not in code_of(upright(*heights))[1]


def test_a_slice_aside_is_varying() -> None:
    stack = planes([(0, 0, 0), (0, 0.5, 1), (0, 0, 2)])
    code, reason = code_of(stack)
    assert code == "varying-spacing"
    assert "s1" in reason


def test_two_at_one_place_say_what_tells_them_apart() -> None:
    stack = upright(0, 2, 2, 4)
    stack[1] = dataclasses.replace(stack[1], tags={"EchoNumbers": "1", "AcquisitionNumber": "4"})
    stack[2] = dataclasses.replace(stack[2], tags={"EchoNumbers": "2", "AcquisitionNumber": "4"})
    code, reason = code_of(stack)
    assert code == "duplicate-slice"
    assert "s1 and s2" in reason
    assert "differing in EchoNumbers;" in reason


@pytest.mark.parametrize("degrees", [0.2, 5.0, 17.0, -17.0])
def test_a_tilt_is_measured_and_its_grid_is_sheared(degrees: float) -> None:
    lean = np.tan(np.radians(degrees))
    result = stack_planes(planes([(0, lean * 5 * k, 5.0 * k) for k in range(12)]))
    assert result.tilt_degrees == pytest.approx(abs(degrees))
    assert result.geometry.sheared
    assert_allclose(result.geometry.affine[:3, 2], [0, -lean * 5, 5], atol=1e-12)
    assert result.notes == ()


def test_a_lean_within_rounding_is_none() -> None:
    result = stack_planes(planes([(0, 0.008 * k, 5.0 * k) for k in range(12)]))
    assert "perpendicular" in result.notes[0]
    assert_allclose(result.geometry.affine[:3, 2], [0, -0.008, 5])  # kept, not straightened


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"frame": "1.2.4"}, "mixed-frame"),
        ({"row": (0.0, 1.0, 0.0), "column": (0.0, 0.0, 1.0)}, "mixed-orientation"),
        ({"row": (np.cos(0.001), np.sin(0.001), 0.0)}, "mixed-orientation"),
        ({"size": (4, 4)}, "mixed-size"),
        ({"spacing_mm": (0.5, 0.76)}, "mixed-size"),
    ],
)
def test_planes_that_differ_are_refused_by_name(change: dict[str, Any], code: str) -> None:
    stack = upright(0, 2, 4)
    stack[2] = dataclasses.replace(stack[2], **change)
    found, reason = code_of(stack)
    assert found == code
    assert "s2" in reason


@pytest.mark.parametrize("row", [(1.0, 0.02, 0.0), (0.0, 0.0, 0.0), (1.1, 0.0, 0.0), (0.0, 1.0, 0.0)])
def test_directions_that_are_none_are_refused(row: tuple[float, float, float]) -> None:
    assert code_of(planes([(0, 0, 0), (0, 0, 1)], row=row))[0] == "bad-affine"


@pytest.mark.parametrize("spacing", [0.625, 0.45, 0.7333, 0.31, 1.25])
@pytest.mark.parametrize("turned", [False, True])
def test_positions_of_one_decimal_are_evened_out(spacing: float, turned: bool) -> None:
    """Old converters wrote them so; the grid that comes out is no further off than a position was."""
    column, normal = ((0.0, 0.8, 0.6), (0.0, -0.6, 0.8)) if turned else ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    true = np.array([3.0, -7.0, 1.0]) + spacing * np.arange(40)[:, None] * np.array(normal)
    rounded = np.round(true, 1)
    made = planes([tuple(position) for position in rounded.tolist()], column=column)
    result = stack_planes(made)
    assert "evened out" in result.notes[0]
    places = result.geometry.voxel_to_world([[0, 0, k] for k in range(40)]) * [-1, -1, 1]
    assert np.abs(places - true).max() < 0.1


def test_decimals_explain_no_slice_that_is_somewhere_else() -> None:
    heights = np.round(0.625 * np.arange(40), 1)
    heights[20] += 0.1
    assert code_of(upright(*heights))[0] == "varying-spacing"
    # The same heights with more digits were never rounded to one.
    exact = np.round(0.625 * np.arange(40), 1) + 0.01
    exact[7] += 0.001
    assert code_of(upright(*exact))[0] == "varying-spacing"
    # Whole millimetres are more off than 0.1 mm.
    assert code_of(upright(*np.round(1.25 * np.arange(9))))[0] in ("varying-spacing", "missing-slice")


def test_a_gap_among_positions_of_one_decimal_is_still_one() -> None:
    heights = np.delete(np.round(0.625 * np.arange(40), 1), 20)
    assert code_of(upright(*heights))[0] in ("missing-slice", "varying-spacing")
