from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from volseg.config import PostprocessRule
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry
from volseg.postprocess import apply_rules
from volseg.volume import Label, LabelVolume

#: 1.5 x 2 x 4 mm: a voxel has 12 mm3, 0.012 ml.
SPACING = (1.5, 2.0, 4.0)


def label_volume(array: npt.ArrayLike, affine: npt.ArrayLike | None = None) -> LabelVolume:
    voxels = np.asarray(array, dtype=np.uint8)
    i, j, k = voxels.shape
    geometry = Geometry((i, j, k), np.asarray(np.diag([*SPACING, 1]) if affine is None else affine, dtype=float))
    labels = tuple(Label(value=value, name=f"l{value}", colour=(value, 0, 0)) for value in (1, 2, 3))
    return LabelVolume(voxels, geometry, labels)


def applied(array: npt.ArrayLike, **rule: Any) -> npt.NDArray[np.unsignedinteger]:
    return apply_rules(label_volume(array), [PostprocessRule(label=1, **rule)]).array


def empty(*shape: int) -> npt.NDArray[np.uint8]:
    return np.zeros(shape, dtype=np.uint8)


def test_largest_component_keeps_what_touches_at_a_corner() -> None:
    array = empty(6, 5, 4)
    array[0, 0, 0] = array[1, 1, 1] = array[2, 2, 2] = 1  # three voxels along a diagonal: one component
    array[5, 3:5, 3] = 1  # two voxels
    expected = array.copy()
    expected[5, 3:5, 3] = 0
    np.testing.assert_array_equal(applied(array, largest_component=True), expected)


def test_other_labels_are_left_alone() -> None:
    array = empty(7, 3, 3)
    array[0:2, 0, 0] = 1
    array[4, 0, 0] = 1
    array[3, 0, 0] = 2  # alone, and would connect the two pieces of label 1 if it counted
    array[6, 2, 2] = 2
    expected = array.copy()
    expected[4, 0, 0] = 0
    np.testing.assert_array_equal(applied(array, largest_component=True), expected)


@pytest.mark.parametrize("axis", range(3))
def test_a_tie_is_won_by_the_component_on_the_right_then_anterior_then_superior(axis: int) -> None:
    array = empty(5, 7, 9)
    low, high = [1, 1, 1], [1, 1, 1]
    high[axis] = 4
    array[tuple(low)] = array[tuple(high)] = 1
    expected = empty(5, 7, 9)
    expected[tuple(high)] = 1
    np.testing.assert_array_equal(applied(array, largest_component=True), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_tie_is_decided_alike_in_all_48_orientations(orientation: str) -> None:
    array = empty(5, 6, 7)
    array[0:2, 0, 6] = array[4, 5, 0:2] = array[2, 2:4, 3] = 1  # pairs: three components of two voxels
    array[0, 5, 0] = 1
    mask = label_volume(array)
    axes = AxisMap.between("RAS", orientation)
    turned = LabelVolume(axes.apply(mask.array), mask.geometry.turned(axes), mask.labels)
    result = apply_rules(turned, [PostprocessRule(label=1, largest_component=True)])
    expected = empty(5, 6, 7)
    expected[4, 5, 0:2] = 1
    np.testing.assert_array_equal(axes.inverse().apply(result.array), expected)


def test_components_below_the_volume_go_and_those_at_it_stay() -> None:
    array = empty(8, 5, 3)
    array[0, 0, 0:3] = 1  # three voxels: 0.036 ml
    array[3:5, 2, 1] = 1  # two voxels: 0.024 ml
    array[7, 4, 2] = 1  # 0.012 ml
    expected = array.copy()
    expected[7, 4, 2] = 0
    np.testing.assert_array_equal(applied(array, min_volume_ml=0.024), expected)
    expected[3:5, 2, 1] = 0
    np.testing.assert_array_equal(applied(array, min_volume_ml=0.0241), expected)
    np.testing.assert_array_equal(applied(array, min_volume_ml=1.0), empty(8, 5, 3))


@pytest.mark.parametrize("degrees", [0, 7, 33, 61])
def test_a_volume_given_exactly_is_kept_on_a_rotated_grid(degrees: float) -> None:
    turn = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:2, :2] = [[c, -s], [s, c]]
    array = empty(5, 4, 3)
    array[1, 1, 0:3] = 1  # 0.036 ml
    mask = label_volume(array, turn @ np.diag([*SPACING, 1]))
    np.testing.assert_array_equal(apply_rules(mask, [PostprocessRule(label=1, min_volume_ml=0.036)]).array, array)


def test_a_hole_is_filled_and_a_label_inside_it_stays() -> None:
    array = empty(7, 6, 5)
    array[1:6, 1:5, 1:4] = 1
    array[2:5, 2:4, 2] = 0  # a cavity of 3 x 2 x 1
    array[3, 2, 2] = 2
    array[2, 3, 2] = 3
    expected = array.copy()
    expected[2:5, 2:4, 2] = [[1, 3], [2, 1], [1, 1]]
    np.testing.assert_array_equal(applied(array, fill_holes=True), expected)


def test_a_cavity_open_over_a_corner_is_a_hole_and_one_open_over_a_face_is_not() -> None:
    array = empty(6, 5, 5)
    array[1:4, 1:4, 1:4] = 1
    array[2, 2, 2] = array[1, 1, 1] = array[1, 1, 2] = 0  # a way out over edges only
    expected = array.copy()
    expected[2, 2, 2] = 1
    np.testing.assert_array_equal(applied(array, fill_holes=True), expected)
    array[1, 2, 2] = 0
    np.testing.assert_array_equal(applied(array, fill_holes=True), array)


def test_a_cavity_at_the_border_of_the_scan_is_open() -> None:
    array = np.ones((4, 3, 5), dtype=np.uint8)
    array[0, 1, 1:4] = 0
    np.testing.assert_array_equal(applied(array, fill_holes=True), array)


def test_a_ring_in_one_slice_is_no_hole_in_3d() -> None:
    array = empty(5, 5, 3)
    array[1:4, 1:4, 1] = 1
    array[2, 2, 1] = 0
    np.testing.assert_array_equal(applied(array, fill_holes=True), array)


def test_a_small_component_inside_a_hole_is_removed_before_the_hole_is_filled() -> None:
    array = empty(9, 7, 7)
    array[1:8, 1:6, 1:6] = 1
    array[2:7, 2:5, 2:5] = 0
    array[4, 3, 3] = 1
    expected = empty(9, 7, 7)
    expected[1:8, 1:6, 1:6] = 1
    np.testing.assert_array_equal(applied(array, largest_component=True, fill_holes=True), expected)


def test_rules_apply_in_their_order() -> None:
    array = empty(7, 5, 5)
    array[1:6, 1:4, 1:4] = 1
    array[2:5, 2, 2] = 0
    array[3, 2, 2] = 2
    remove_2 = PostprocessRule(label=2, min_volume_ml=1)
    fill_1 = PostprocessRule(label=1, fill_holes=True)
    assert apply_rules(label_volume(array), [fill_1, remove_2]).array[3, 2, 2] == 0
    assert apply_rules(label_volume(array), [remove_2, fill_1]).array[3, 2, 2] == 1


def test_nothing_asked_or_nothing_there_changes_nothing() -> None:
    array = empty(4, 3, 2)
    array[1, 1, 1] = 2
    mask = label_volume(array)
    everything = {"largest_component": True, "min_volume_ml": 1.0, "fill_holes": True}
    rules = [PostprocessRule(label=label, **everything) for label in (0, 1, 3, 900)]
    for result in (apply_rules(mask, []), apply_rules(mask, [PostprocessRule(label=2)]), apply_rules(mask, rules)):
        np.testing.assert_array_equal(result.array, array)
        assert result.array.dtype == np.uint8
        assert result.geometry is mask.geometry
        assert result.labels == mask.labels


def test_a_label_that_an_earlier_rule_removed_is_no_error() -> None:
    array = empty(4, 3, 2)
    array[1, 1, 1] = 1
    gone = PostprocessRule(label=1, min_volume_ml=1)
    again = PostprocessRule(label=1, largest_component=True, fill_holes=True, min_volume_ml=1)
    assert not apply_rules(label_volume(array), [gone, again]).array.any()


def test_the_mask_given_is_not_changed() -> None:
    array = empty(5, 4, 3)
    array[0, 0, 0] = array[2:4, 2, 2] = 1
    mask = label_volume(array)
    before = mask.array.copy()
    assert apply_rules(mask, [PostprocessRule(label=1, largest_component=True)]).array.sum() == 2
    np.testing.assert_array_equal(mask.array, before)


def slow(array: npt.NDArray[np.uint8], rule: PostprocessRule) -> npt.NDArray[np.uint8]:
    """The obvious way: the whole array, scipy, one component at a time."""
    mask = array == rule.label
    numbers, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    pieces = [numbers == number for number in range(1, count + 1)]
    if rule.largest_component and pieces:
        key = {id(p): (p.sum(), *np.round(np.argwhere(p).mean(axis=0) * SPACING, 3)) for p in pieces}
        pieces = [max(pieces, key=lambda p: key[id(p)])]
    pieces = [p for p in pieces if p.sum() * 0.012 >= rule.min_volume_ml - 1e-9]
    kept = np.logical_or.reduce([np.zeros_like(mask), *pieces])
    result = array.copy()
    result[mask & ~kept] = 0
    if rule.fill_holes:
        result[ndimage.binary_fill_holes(kept) & (result == 0)] = rule.label
    return result


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(np.uint8, st.tuples(*(st.integers(1, 6),) * 3), elements=st.sampled_from([0, 1, 1, 1, 2])),
    largest=st.booleans(),
    voxels=st.integers(0, 4),
    fill=st.booleans(),
)
def test_as_the_slow_way(array: npt.NDArray[np.uint8], largest: bool, voxels: int, fill: bool) -> None:
    rule = PostprocessRule(label=1, largest_component=largest, min_volume_ml=voxels * 0.012, fill_holes=fill)
    if largest:  # concentric pieces of equal size are a tie that only the order of the voxels decides
        numbers, count = ndimage.label(array == 1, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel())[1:]
        centroids = [tuple(np.argwhere(numbers == n + 1).mean(0)) for n in range(count) if sizes[n] == sizes.max()]
        if len(set(centroids)) < len(centroids):
            return
    np.testing.assert_array_equal(apply_rules(label_volume(array), [rule]).array, slow(array, rule))


def test_in_layers_rules_see_all_of_a_label() -> None:
    """A bar of label 1 with 2 painted over its middle, which leaves two parts of 1 in the array."""
    array = empty(9, 3, 3)
    array[1:8, 1, 1] = 1
    whole = array.copy()
    array[3:5, 1, 1] = 2
    above = np.where(array == 2, array, 0).astype(np.uint8)
    mask = replace(label_volume(array), layers=(whole, above))
    ruled = apply_rules(mask, [PostprocessRule(label=1, largest_component=True)])
    assert ruled.array[:, 1, 1].tolist() == [0, 0, 0, 2, 2, 1, 1, 1, 0]
    assert np.array_equal(ruled.voxels_of(mask.labels[0]), whole == 1)
    assert np.array_equal(ruled.voxels_of(mask.labels[1]), array == 2)


def test_in_layers_no_other_label_keeps_a_hole() -> None:
    array = empty(5, 5, 5)
    array[1:4, 1:4, 1:4] = 1
    array[2, 2, 2] = 2
    mask = replace(label_volume(array), layers=(np.where(array == 1, array, 0), np.where(array == 2, array, 0)))
    ruled = apply_rules(mask, [PostprocessRule(label=1, fill_holes=True)])
    assert ruled.array[2, 2, 2] == 2
    first, second, third = (ruled.voxels_of(label) for label in mask.labels)
    assert (first.sum(), second.sum(), third.sum()) == (27, 1, 0)
    assert first[2, 2, 2]
    assert second[2, 2, 2]
