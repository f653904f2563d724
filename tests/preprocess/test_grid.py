from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.helpers.recipes import affine_of, recipe
from volseg.config import STORED_ORIENTATIONS
from volseg.geometry import Geometry
from volseg.preprocess.grid import Box, content_box, model_axes, resampled_size, separate_axis


def test_a_box_is_an_index() -> None:
    array = np.arange(60).reshape(3, 4, 5)
    assert np.array_equal(array[Box((1, 0, 2), (2, 3, 1)).slices], array[1:3, 0:3, 2:3])


@given(
    arrays.arrays(
        np.int16,
        st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)),
        elements=st.sampled_from([0, 0, 0, 0, 0, 0, 7, -1]),
    ),
    st.permutations([1, 2, 3]),
)
def test_content_is_where_any_channel_is_not_0(array: np.ndarray, order: list[int]) -> None:
    array = array.transpose(0, *order)  # in memory, any axis may be the outermost
    places = np.argwhere((array != 0).any(0))
    box = content_box(array)
    if len(places):
        assert box.start == tuple(places.min(0))
        assert box.shape == tuple(np.ptp(places, 0) + 1)
    else:
        assert box == Box((0, 0, 0), array.shape[1:])


def test_axes_in_any_stored_order() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    geometry = Geometry((2, 3, 4), affine_of("PIL", (1.0, 1.0, 1.0)))
    assert len(STORED_ORIENTATIONS) == 6
    for order in itertools.permutations(range(3)):
        letters = "".join("IJK"[axis] for axis in order)
        turned = model_axes(geometry, recipe(orientation=f"stored-{letters}")).apply(array)
        assert np.array_equal(turned, array.transpose(order))


@pytest.mark.parametrize(
    ("size", "spacing", "wanted", "expected"),
    [
        (10, 1.5, 3.0, 5),
        (11, 1.5, 3.0, 6),  # 5.5: the even one
        (9, 1.5, 3.0, 4),  # 4.5: the even one
        (2, 0.4, 3.0, 1),  # never none
        (101, 2.0, 3.0, 67),
    ],
)
def test_sizes_worked_by_hand(size: int, spacing: float, wanted: float, expected: int) -> None:
    assert resampled_size(size, spacing, wanted) == expected


@pytest.mark.parametrize("spacing", [0.7, 0.9, 1.1, 1.3, 2.6])
@pytest.mark.parametrize("angle", [0, 3, 20, 77])
def test_half_a_voxel_is_rounded_alike_however_the_scan_is_stored(spacing: float, angle: float) -> None:
    """DICOM states a spacing in decimals, NIfTI in single precision, and along oblique axes it is a square root."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) * spacing
    stored = Geometry((5, 5, 5), affine.astype(np.float32)).spacing_mm
    for size in (15, 25, 35, 45):
        # Single precision in the header and in the plans, as nnU-Net has it.
        expected = round(float(np.float32(spacing)) / (spacing * 2) * size)
        for found in (spacing, *stored):
            assert resampled_size(size, found, spacing * 2) == expected


@pytest.mark.parametrize(
    ("current", "new", "auto", "always"),
    [
        ((1, 1, 1), (2, 2, 2), None, None),
        ((1, 1.1, 1.2), (2, 2, 2), None, 2),
        ((1, 1, 3), (1, 1, 1), None, 2),  # more than three times is meant
        ((1, 1, 3.01), (1, 1, 1), 2, 2),
        ((5, 1, 1), (1, 1, 1), 0, 0),
        ((1, 1, 1), (1, 6, 1), 1, None),  # the model's grid decides where the scan's doesn't
        ((4, 1, 1), (1, 1, 4), 0, 0),  # the scan's decides first
        ((0.24, 1.25, 1.25), (1, 1, 1), None, None),  # two axes are the coarsest
        ((0.24, 1.25, 1.25000001), (1, 1, 1), None, None),  # as single precision has it
        ((0.24, 1.25, 1.25), (1, 1, 6), None, None),  # nor does the model's grid decide then
        ((1, 1, 3.0000001), (1, 1, 1), None, 2),
    ],
)
def test_the_separate_axis(
    current: tuple[float, ...], new: tuple[float, ...], auto: int | None, always: int | None
) -> None:
    assert separate_axis(current, new, "auto") == auto
    assert separate_axis(current, new, "always") == always
    assert separate_axis(current, new, "never") is None
