"""Evaluation of a folder of predictions against a folder of references."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from volseg.errors import RefusalError, UsageError
from volseg.evaluation.overlap import pixel_accuracy
from volseg.evaluation.pairs import (
    NotEvaluated,
    Pair,
    find_pairs,
    read_pair,
)
from volseg.evaluation.scores import TOLERANCE_MM, LabelScore, absent, evaluate_pair
from volseg.evaluation.statistics import Summary, summarise
from volseg.volume import LabelVolume


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """Scores of one case.

    Attributes
    ----------
    case
        Its name.
    accuracy
        Share of its voxels, without those that are left out, that have the same label, or none, in both masks.
    labels
        A score for every label of the evaluation, in ascending order of value.
    """

    case: str
    accuracy: float
    labels: tuple[LabelScore, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of all cases.

    Attributes
    ----------
    tolerance_mm
        Tolerance of NSD.
    ignored
        Value in the references of voxels that were left out; None: no voxel was.
    cases
        Scores of the cases, by name; each has the same labels.
    not_evaluated
        Cases without scores, with the reason.
    notes
        Notes that a reader of the scores should know.
    """

    tolerance_mm: float
    ignored: int | None
    cases: tuple[CaseScore, ...]
    not_evaluated: tuple[NotEvaluated, ...]
    notes: tuple[str, ...]

    def summaries(self) -> list[Summary]:
        """Return a summary of each label over the cases, then one of the mean of labels."""
        return summarise([case.labels for case in self.cases])


def evaluate_folders(
    predicted: Path,
    reference: Path,
    tolerance_mm: float = TOLERANCE_MM,
    on_case: Callable[[int, int, str], None] | None = None,
    ignored: int | None = None,
) -> Evaluation:
    """Pair masks and score each pair.

    Every case gets a score for each label that any case lists or holds.

    Parameters
    ----------
    predicted, reference
        Files or folders, as `find_pairs` takes them.
    tolerance_mm
        Tolerance of NSD.
    on_case
        A function that is called before each pair with its number (from 1), the number of pairs, and the case.
    ignored
        Value in the reference of voxels that count for nothing: nobody judged them.

    Raises
    ------
    UsageError
        A path doesn't exist, two masks are of one case, or the tolerance is negative or not finite.
    InputError
        Code ``no-image``: a folder without a mask. A pair that can't be compared is no error: it is listed.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UsageError(f"the tolerance is {tolerance_mm} mm; give a number from 0 up")
    pairs, not_evaluated = find_pairs(predicted, reference)
    cases: list[CaseScore] = []
    notes: dict[str, None] = {}
    left_out = 0
    for number, pair in enumerate(pairs, start=1):
        if on_case:
            on_case(number, len(pairs), pair.case)
        try:
            case, remarks, count = _evaluate(pair, tolerance_mm, ignored)
        except RefusalError as error:
            not_evaluated.append(NotEvaluated(case=pair.case, reason=str(error), code=error.code))
            continue
        cases.append(case)
        notes |= dict.fromkeys(remarks)
        left_out += count
    if ignored is not None:
        told = f"{left_out} voxels with the value {ignored} in the reference are left out"
        notes[told if left_out else f"no reference has a voxel of the ignored value {ignored}"] = None
    return Evaluation(
        tolerance_mm=tolerance_mm,
        ignored=ignored,
        cases=_with_every_label(cases),
        not_evaluated=tuple(sorted(not_evaluated, key=lambda item: item.case)),
        notes=tuple(notes),
    )


def _evaluate(pair: Pair, tolerance_mm: float, ignored: int | None) -> tuple[CaseScore, list[str], int]:
    """Scores of a pair, what to tell of it, and the number of voxels that are left out."""
    predicted, reference, notes = read_pair(pair)
    # No voxel is below 0: without an ignored value, none is left out.
    left_out = reference.array == (-1 if ignored is None else ignored)
    known = tuple(label for label in reference.labels if label.value != ignored)
    reference = replace(reference, labels=known)
    scores = evaluate_pair(predicted, reference, tolerance_mm, left_out if left_out.any() else None)
    accuracy = pixel_accuracy(predicted.array[~left_out], reference.array[~left_out])
    case = CaseScore(case=pair.case, accuracy=accuracy, labels=tuple(scores))
    return case, [*notes, *_contradictions(_names(predicted), _names(reference))], int(left_out.sum())


def _names(mask: LabelVolume) -> dict[int, str]:
    return {label.value: label.name for label in mask.labels}


def _contradictions(predicted: Mapping[int, str], reference: Mapping[int, str]) -> list[str]:
    """Labels that are paired by value although their names differ, other than "Anterior" from "anterior part"."""
    notes = []
    for value in sorted(predicted.keys() & reference.keys()):
        ours, theirs = predicted[value].casefold(), reference[value].casefold()
        if ours not in theirs and theirs not in ours:
            notes.append(
                f"label {value} is {predicted[value]!r} in the prediction and {reference[value]!r} in the reference;"
                " labels are compared by value"
            )
    return notes


def _with_every_label(cases: Sequence[CaseScore]) -> tuple[CaseScore, ...]:
    """Give each case a score for the labels that only others have: it counts as empty in both masks."""
    names: dict[int, str] = {}
    for case in cases:
        for score in case.labels:
            names.setdefault(score.value, score.name)
    complete = []
    for case in cases:
        scores = {score.value: score for score in case.labels}
        labels = tuple(scores.get(value) or absent(value, names[value]) for value in sorted(names))
        complete.append(CaseScore(case=case.case, accuracy=case.accuracy, labels=labels))
    return tuple(complete)
