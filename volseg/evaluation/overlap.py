"""Overlap of two masks: Dice, IoU, pixel accuracy, from counts of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How the voxels of two masks meet, for one label.

    Attributes
    ----------
    both, predicted_only, reference_only
        Voxels that have the label in both masks, and in one of them.
    total
        Voxels of the grid.
    """

    both: int
    predicted_only: int
    reference_only: int
    total: int

    @property
    def predicted(self) -> int:
        """Voxels of the label in the prediction."""
        return self.both + self.predicted_only

    @property
    def reference(self) -> int:
        """Voxels of the label in the reference."""
        return self.both + self.reference_only

    @property
    def dice(self) -> float | None:
        """Twice the overlap over the sum of both sizes; None where the label is in neither mask."""
        size = self.predicted + self.reference
        return 2 * self.both / size if size else None

    @property
    def iou(self) -> float | None:
        """Overlap over union (Jaccard index); None where the label is in neither mask."""
        union = self.both + self.predicted_only + self.reference_only
        return self.both / union if union else None

    @property
    def accuracy(self) -> float:
        """Share of the grid's voxels that both masks put inside, or both outside, the label."""
        return 1 - (self.predicted_only + self.reference_only) / self.total


def confusion(predicted: Labels, reference: Labels, values: Sequence[int]) -> dict[int, Confusion]:
    """Count voxels for all labels at once.

    Parameters
    ----------
    predicted, reference
        Masks of the same shape, integers from 0 (background) up.
    values
        The labels to count.

    Returns
    -------
    dict
        A `Confusion` for each of `values`, in their order.

    Raises
    ------
    ValueError
        The shapes differ, or a voxel is negative.
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"masks of shape {predicted.shape} and {reference.shape}; they must lie on one grid")
    # Counting only where something is: most of a scan is background, and bincount works on 8 bytes a voxel.
    somewhere = (predicted != 0) | (reference != 0)
    in_predicted = predicted[somewhere].astype(np.int64)
    in_reference = reference[somewhere].astype(np.int64)
    bins = max(values, default=0) + 1
    both = np.bincount(in_predicted[in_predicted == in_reference], minlength=bins)
    of_predicted = np.bincount(in_predicted, minlength=bins)
    of_reference = np.bincount(in_reference, minlength=bins)
    return {
        value: Confusion(
            both=int(both[value]),
            predicted_only=int(of_predicted[value] - both[value]),
            reference_only=int(of_reference[value] - both[value]),
            total=predicted.size,
        )
        for value in values
    }


def dice_per_label(predicted: Labels, reference: Labels, values: Sequence[int]) -> list[float | None]:
    """Dice of each of `values`: None where a label is in neither mask, 0 where it is in one of them.

    Parameters
    ----------
    predicted, reference
        Masks of the same shape, integers from 0 up.
    values
        The labels, without the background (0).
    """
    return [counts.dice for counts in confusion(predicted, reference, values).values()]


def pixel_accuracy(predicted: Labels, reference: Labels) -> float:
    """Share of voxels that have the same label (or none) in both masks, of the same shape."""
    return float(np.mean(predicted == reference))
