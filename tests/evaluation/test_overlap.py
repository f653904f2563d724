from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from volseg.evaluation.overlap import Confusion, confusion, dice_per_label, pixel_accuracy

#: 2 x 3 x 2 voxels. Label 1: 3 predicted, 4 reference, 2 shared; label 2: 2, 1, 1; label 3: reference alone.
PREDICTED = np.array([[[1, 1], [1, 0], [0, 0]], [[2, 2], [0, 0], [0, 0]]], dtype=np.uint8)
REFERENCE = np.array([[[1, 1], [0, 1], [1, 0]], [[2, 0], [3, 0], [0, 0]]], dtype=np.uint8)


def test_hand_worked_counts() -> None:
    counts = confusion(PREDICTED, REFERENCE, [1, 2, 3, 7])
    assert counts == {
        1: Confusion(both=2, predicted_only=1, reference_only=2, total=12),
        2: Confusion(both=1, predicted_only=1, reference_only=0, total=12),
        3: Confusion(both=0, predicted_only=0, reference_only=1, total=12),
        7: Confusion(both=0, predicted_only=0, reference_only=0, total=12),
    }


def test_hand_worked_metrics() -> None:
    counts = confusion(PREDICTED, REFERENCE, [1, 2, 3, 7])
    assert [counts[1].dice, counts[1].iou, counts[1].accuracy] == pytest.approx([4 / 7, 2 / 5, 9 / 12])
    assert [counts[2].dice, counts[2].iou, counts[2].accuracy] == pytest.approx([2 / 3, 1 / 2, 11 / 12])
    assert (counts[3].dice, counts[3].iou) == (0, 0)
    assert (counts[7].dice, counts[7].iou, counts[7].accuracy) == (None, None, 1)
    assert (counts[1].predicted, counts[1].reference) == (3, 4)


def test_pixel_accuracy_counts_the_same_label_or_none() -> None:
    assert pixel_accuracy(PREDICTED, REFERENCE) == pytest.approx(7 / 12)


def test_dice_per_label_is_in_the_order_asked_for() -> None:
    assert dice_per_label(PREDICTED, REFERENCE, [3, 7, 1]) == [0, None, pytest.approx(4 / 7)]
    assert dice_per_label(PREDICTED, REFERENCE, []) == []


def test_masks_of_other_types_and_high_values() -> None:
    predicted, reference = np.zeros((2, 3, 4), dtype=np.int64), np.zeros((2, 3, 4), dtype=np.uint16)
    predicted[0, 0, :3] = reference[0, 0, 1:] = 65535
    assert dice_per_label(predicted, reference, [65535]) == [pytest.approx(2 / 3)]


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 2\) and \(2, 3, 1\)"):
        confusion(PREDICTED, REFERENCE[..., :1], [1])


def test_a_negative_label_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        confusion(np.array([[[-1, 1]]]), np.array([[[0, 1]]]), [1])


masks = hnp.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 3))


@given(predicted=masks, reference=masks)
def test_as_sets_of_voxels(predicted: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> None:
    for value, counts in confusion(predicted, reference, [1, 2, 3, 4]).items():
        ours = {tuple(index) for index in np.argwhere(predicted == value)}
        theirs = {tuple(index) for index in np.argwhere(reference == value)}
        assert counts.dice == (2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours | theirs else None)
        assert counts.iou == (len(ours & theirs) / len(ours | theirs) if ours | theirs else None)
        assert counts.accuracy == pytest.approx(1 - len(ours ^ theirs) / 24)
