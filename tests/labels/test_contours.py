from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from volseg.labels import contours
from volseg.labels.contours import inside

Corners = Sequence[tuple[float, float]]


def fill(*polygons: Corners, size: tuple[int, int] = (8, 6)) -> list[str]:
    """Rows of the plane as text, the first coordinate running to the right."""
    mask = inside([np.array(polygon, dtype=float) for polygon in polygons], *size)
    assert mask.shape == size
    return ["".join(".#"[int(voxel)] for voxel in row) for row in mask.T]


def test_a_rectangle_between_centres() -> None:
    assert fill([(0.5, 0.5), (4.5, 0.5), (4.5, 2.5), (0.5, 2.5)]) == [
        "........",
        ".####...",
        ".####...",
        "........",
        "........",
        "........",
    ]


def test_a_triangle() -> None:
    # Row 1 ends at 5.5, row 2 at 4.25, row 3 at 3, row 4 at 1.75.
    assert fill([(0.5, 0.6), (6.0, 0.6), (0.5, 5.0)]) == [
        "........",
        ".#####..",
        ".####...",
        ".##.....",
        ".#......",
        "........",
    ]


def test_edges_through_centres_belong_to_the_side_of_higher_indices() -> None:
    left = [(1, 1), (3, 1), (3, 4), (1, 4)]
    right = [(3, 1), (6, 1), (6, 4), (3, 4)]
    assert fill(left)[1:4] == [".##....."] * 3
    assert fill(right)[1:4] == ["...###.."] * 3
    assert fill(left)[4] == "........"


def test_a_contour_within_another_is_a_hole_and_one_beside_it_is_more() -> None:
    outer = [(0.5, -0.5), (6.5, -0.5), (6.5, 4.5), (0.5, 4.5)]
    hole = [(2.5, 1.5), (4.5, 1.5), (4.5, 3.5), (2.5, 3.5)]
    beside = [(6.7, 4.5), (7.5, 4.5), (7.5, 5.5), (6.7, 5.5)]
    wanted = [".######.", ".######.", ".##..##.", ".##..##.", ".######.", ".......#"]
    assert fill(outer, hole, beside) == wanted
    assert fill(beside, hole[::-1], outer) == wanted


def test_a_keyhole_is_the_ring_without_its_channel() -> None:
    outer = [(0.4, 0.4), (6.6, 0.3), (6.7, 4.6), (0.3, 4.7)]
    hole = [(2.3, 1.6), (2.2, 3.4), (4.6, 3.3), (4.4, 1.7)]
    keyhole = [*outer, outer[0], *hole, hole[0]]
    assert fill(keyhole) == fill(outer, hole)


def test_what_lies_beyond_the_plane_is_cut_off() -> None:
    assert fill([(-100.5, -7), (2.5, -7), (2.5, 300), (-100.5, 300)]) == ["###....."] * 6
    assert fill([(20.0, 1.0), (30.0, 1.0), (25.0, 4.0)]) == ["........"] * 6
    assert fill([(1.0, -9.0), (5.0, -9.0), (3.0, -2.0)]) == ["........"] * 6
    assert fill([(-9, -9), (90, -9), (90, 90), (-9, 90)]) == ["########"] * 6


@pytest.mark.parametrize("polygon", [[(2.0, 2.0)], [(1.0, 1.0), (5.0, 3.0)], [(1.0, 2.0), (3.0, 2.0), (5.0, 2.0)]])
def test_what_has_no_area_is_empty(polygon: Corners) -> None:
    assert fill(polygon) == ["........"] * 6


def by_crossings(polygons: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Each voxel by itself: crossings of the ray to the left, edge by edge."""
    mask = np.zeros(size, dtype=bool)
    for i, j in np.ndindex(size):
        for polygon in polygons:
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                if (y0 <= j) != (y1 <= j) and x0 + (j - y0) * (x1 - x0) / (y1 - y0) <= i:
                    mask[i, j] = not mask[i, j]
    return mask


@st.composite
def stars(draw: st.DrawFn) -> npt.NDArray[np.float64]:
    """Star-shaped polygons with 3 to 12 corners, some of them beyond the plane."""
    radii = np.array(draw(st.lists(st.floats(0.3, 7), min_size=3, max_size=12)))
    angles = 2 * np.pi * (np.arange(len(radii)) + draw(st.floats(0, 1))) / len(radii)
    centre = np.array([draw(st.floats(-1, 9)), draw(st.floats(-1, 7))])
    return np.asarray(centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))


@given(polygon=stars())
def test_as_matplotlib_fills(polygon: npt.NDArray[np.float64]) -> None:
    size = (9, 7)
    centres = np.argwhere(np.ones(size))
    path = Polygon(np.concatenate([polygon, polygon[:1]]), closed=True)
    # Within a thousandth of a voxel of an edge, either answer is right.
    surely, perhaps = (path.contains_points(centres, radius=radius).reshape(size) for radius in (-1e-3, 1e-3))
    if not signed_area(polygon) > 0:
        surely, perhaps = perhaps, surely
    mask = inside([polygon], *size)
    differs = surely == perhaps
    assert np.array_equal(mask[differs], surely[differs])


def signed_area(polygon: npt.NDArray[np.float64]) -> float:
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@given(polygons=st.lists(stars(), min_size=1, max_size=4), parts=st.integers(1, 40))
def test_as_counting_crossings_voxel_by_voxel(polygons: list[npt.NDArray[np.float64]], parts: int) -> None:
    before, contours.CROSSINGS = contours.CROSSINGS, parts
    try:
        mask = inside(polygons, 9, 7)
    finally:
        contours.CROSSINGS = before
    rounded = [np.round(polygon, 6) for polygon in polygons]
    assert np.array_equal(mask, by_crossings(rounded, (9, 7)))


@given(polygons=st.lists(stars(), min_size=1, max_size=3))
def test_twice_the_same_is_nothing_whichever_way_it_runs(polygons: list[npt.NDArray[np.float64]]) -> None:
    assert not inside([*polygons, *(polygon[::-1] for polygon in polygons)], 9, 7).any()
