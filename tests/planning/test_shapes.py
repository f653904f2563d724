"""Spacing, stages and windows, worked out by hand from nnU-Net's published rules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.planning.shapes import coarser, largest_window, smaller, target_spacing, topology


def test_the_spacing_is_the_median_of_each_axis() -> None:
    spacings = [(1.0, 0.5, 2.0), (3.0, 0.7, 2.2), (2.0, 0.9, 2.1)]
    assert target_spacing(spacings, [(50, 100, 60)] * 3) == ((2.0, 0.7, 2.1), None)


def test_a_coarse_axis_takes_its_tenth_percentile() -> None:
    # 5, 6, ... 15 mm: the tenth percentile of eleven values is the second.
    spacings = [(float(mm), 0.5, 0.6) for mm in range(5, 16)]
    assert target_spacing(spacings, [(20, 300, 300)] * 11) == ((6.0, 0.5, 0.6), 0)


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((1.5, 0.5, 0.5), (20, 300, 300)), ((5.0, 0.5, 0.5), (100, 300, 300))],
    ids=["three times, not more", "as many slices as a third"],
)
def test_an_axis_that_isn_t_coarse_keeps_its_median(
    spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    spacings = [spacing, spacing, (spacing[0] / 5, spacing[1], spacing[2])]
    assert target_spacing(spacings, [shape] * 3) == (spacing, None)


def test_a_coarse_axis_doesn_t_become_finer_than_the_others() -> None:
    spacings = [(0.1, 1.0, 0.9)] * 2 + [(8.0, 1.0, 0.9)] * 8
    assert target_spacing(spacings, [(20, 300, 300)] * 10)[0][0] == 1.0


def test_a_spacing_in_single_precision_is_the_short_number() -> None:
    assert target_spacing([(0.8999999761581421, 1.0, 1.0)], [(9, 9, 9)])[0] == (0.9, 1.0, 1.0)


def test_the_stages_of_the_hippocampus_are_nnunet_s() -> None:
    # 36 -> 18 -> 9 -> 5 and 50 -> 25 -> 13 -> 7: then every axis has fewer than 8.
    found = topology((36, 50, 35), (1.0, 1.0, 1.0))
    assert found.window == (40, 56, 40)
    assert found.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert set(found.kernels) == {(3, 3, 3)}


def test_thick_slices_are_halved_and_convolved_later() -> None:
    # In plane 0.6 -> 1.2 -> 2.4 -> 4.8 mm; slices of 5 mm join once in-plane voxels are 4.8 mm: then 20 are halved.
    found = topology((20, 320, 256), (5.0, 0.6, 0.6))
    assert found.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    assert found.strides[4] == (2, 2, 2)
    # 5 < 2 x 2.4 isn't so, 5 < 2 x 4.8 is.
    assert found.kernels[:4] == ((1, 3, 3), (1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert found.window[0] % 4 == 0


def test_four_slices_are_never_halved() -> None:
    found = topology((4, 64, 64), (1.0, 1.0, 1.0))
    assert {step[0] for step in found.strides} == {1}
    assert found.window[0] == 4
    assert found.multiple[1] > 1


def test_a_tiny_case_has_one_stage() -> None:
    assert topology((5, 6, 7), (1.0, 1.0, 1.0)).strides == ((1, 1, 1),)


sizes = st.tuples(*(st.integers(2, 300),) * 3)
spacings = st.tuples(*(st.floats(0.3, 8.0),) * 3)


@given(sizes, spacings)
def test_a_window_fits_its_strides_and_holds_what_it_was_made_for(
    size: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    found = topology(size, spacing)
    for axis in range(3):
        assert found.window[axis] % found.multiple[axis] == 0
        assert size[axis] <= found.window[axis] < size[axis] + found.multiple[axis]
        # The lowest stage keeps four voxels of what it had eight of.
        assert found.window[axis] // found.multiple[axis] >= min(4, size[axis])
    assert len(found.strides) == len(found.kernels)


@given(sizes, spacings)
def test_windows_become_smaller_to_an_end(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    found = topology(size, spacing)
    for _ in range(500):
        after = smaller(found, size, spacing)
        if after is None:
            return
        assert math.prod(after.window) < math.prod(found.window)
        found = after
    pytest.fail("no end")


def test_the_largest_window_is_a_cube_in_mm() -> None:
    assert largest_window((500, 500, 500), (2.0, 1.0, 1.0), 4 * 10**6 // 2) == (79, 159, 159)
    assert largest_window((30, 500, 90), (2.0, 1.0, 1.0), 4 * 10**6 // 2) == (30, 159, 90)


def test_coarser_leaves_an_axis_that_is_coarse_already() -> None:
    assert coarser((5.0, 1.0, 1.0)) == (5.0, 1.03, 1.03)
    assert coarser((1.5, 1.0, 1.0)) == pytest.approx((1.545, 1.03, 1.03))
