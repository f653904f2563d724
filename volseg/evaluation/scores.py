"""What one case scores: a `LabelScore` for each label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.errors import GeometryError, InputError
from volseg.evaluation.overlap import Confusion, confusion
from volseg.evaluation.surface import SurfaceDistances, surface_distances, surface_points
from volseg.geometry import Floats
from volseg.volume import LabelVolume

State = Literal["scored", "both empty", "reference empty", "prediction empty"]
STATES: tuple[State, ...] = get_args(State)
Box = tuple[slice, slice, slice]

#: The default of NSD's tolerance, in mm.
TOLERANCE_MM = 1.0


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """Agreement of a prediction with its reference on one label of one case.

    Attributes
    ----------
    value, name
        The label's value and name.
    state
        State of the label: ``"scored"`` where both masks hold it; else which of them doesn't.
    dice, iou
        Overlap, 0 to 1. 0 where one mask is empty, None where both are.
    accuracy
        Share of the scan's voxels, without those that are left out, that both masks put inside, or both outside, the
        label.
    hd95_mm
        95th percentile Hausdorff distance; None where a mask is empty.
    nsd
        Normalised surface Dice; 0 where one mask is empty, None where both are.
    predicted_ml, reference_ml
        Volumes in the two masks.
    """

    value: int
    name: str
    state: State
    dice: float | None
    iou: float | None
    accuracy: float
    hd95_mm: float | None
    nsd: float | None
    predicted_ml: float
    reference_ml: float


def absent(value: int, name: str) -> LabelScore:
    """Score of a label that is in neither mask of a case."""
    return LabelScore(
        value=value,
        name=name,
        state="both empty",
        dice=None,
        iou=None,
        accuracy=1.0,
        hd95_mm=None,
        nsd=None,
        predicted_ml=0.0,
        reference_ml=0.0,
    )


def label_names(predicted: LabelVolume, reference: LabelVolume) -> dict[int, str]:
    """Name of each label that a mask lists; where both do, the prediction's."""
    return {label.value: label.name for mask in (reference, predicted) for label in mask.labels}


def evaluate_pair(
    predicted: LabelVolume,
    reference: LabelVolume,
    tolerance_mm: float = TOLERANCE_MM,
    left_out: npt.NDArray[np.bool_] | None = None,
) -> list[LabelScore]:
    """Score each label that a mask lists or holds.

    Parameters
    ----------
    predicted, reference
        Masks on one grid.
    tolerance_mm
        Tolerance of NSD.
    left_out
        Voxels that nobody judged, on the same grid: they count as background in both masks, and in no share or volume.

    Returns
    -------
    list of LabelScore
        In ascending order of value.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: the grids differ.
    InputError
        Code ``unsupported``: every voxel is left out.
    """
    if difference := predicted.geometry.difference(reference.geometry):
        raise GeometryError(
            f"the prediction lies on another grid than its reference: {difference};"
            " a mask is evaluated on the grid of the scan it was made for",
            code="grid-mismatch",
            path=predicted.source.path,
        )
    count = 0
    if left_out is not None:
        count = int(left_out.sum())
        if count == left_out.size:
            raise InputError("every voxel is left out: nothing is there to judge", code="unsupported")
        predicted, reference = without(predicted, left_out), without(reference, left_out)
    predicted_boxes, reference_boxes = _boxes(predicted), _boxes(reference)
    names = label_names(predicted, reference)
    values = sorted(predicted_boxes.keys() | reference_boxes.keys() | names.keys())
    scores = []
    for value, counted in confusion(predicted.array, reference.array, values).items():
        counts = replace(counted, total=counted.total - count)
        distances = None
        if value in predicted_boxes and value in reference_boxes:
            distances = surface_distances(
                _surface(predicted, value, predicted_boxes[value]), _surface(reference, value, reference_boxes[value])
            )
        name = names.get(value, f"label {value}")
        scores.append(_score(value, name, counts, distances, reference.geometry.voxel_volume_ml, tolerance_mm))
    return scores


def without(mask: LabelVolume, left_out: npt.NDArray[np.bool_]) -> LabelVolume:
    """`mask`, with background in the voxels that are left out."""
    return mask.with_array(np.where(left_out, mask.array.dtype.type(0), mask.array))


def _boxes(mask: LabelVolume) -> dict[int, Box]:
    """Bounding box of each label that occurs."""
    boxes = enumerate(ndimage.find_objects(mask.array), start=1)
    return {value: (box[0], box[1], box[2]) for value, box in boxes if box is not None}


def _surface(mask: LabelVolume, value: int, box: Box) -> Floats:
    i, j, k = box
    shape = (i.stop - i.start, j.stop - j.start, k.stop - k.start)
    return surface_points(mask.array[box] == value, mask.geometry.cropped((i.start, j.start, k.start), shape))


def _state(counts: Confusion) -> State:
    if counts.predicted and counts.reference:
        return "scored"
    if counts.predicted:
        return "reference empty"
    return "prediction empty" if counts.reference else "both empty"


def _score(
    value: int,
    name: str,
    counts: Confusion,
    distances: SurfaceDistances | None,
    voxel_ml: float,
    tolerance_mm: float,
) -> LabelScore:
    state = _state(counts)
    if distances is not None:
        nsd: float | None = distances.nsd(tolerance_mm)
    else:
        nsd = None if state == "both empty" else 0.0
    return LabelScore(
        value=value,
        name=name,
        state=state,
        dice=counts.dice,
        iou=counts.iou,
        accuracy=counts.accuracy,
        hd95_mm=None if distances is None else distances.hd95_mm,
        nsd=nsd,
        predicted_ml=counts.predicted * voxel_ml,
        reference_ml=counts.reference * voxel_ml,
    )
