"""Evaluation of a folder of predictions against a folder of references."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
        Share of its voxels that have the same label, or none, in both masks.
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
        Of NSD.
    cases
        By name; each has the same labels.
    not_evaluated
        Cases without scores, with the reason.
    notes
        What a reader of the scores should know.
    """

    tolerance_mm: float
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
) -> Evaluation:
    """Pair masks and score each pair.

    Every case gets a score for each label that any case lists or holds.

    Parameters
    ----------
    predicted, reference
        As `find_pairs` takes them.
    tolerance_mm
        Of NSD.
    on_case
        Called before each pair with its number (from 1), the number of pairs, and the case.

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
    for number, pair in enumerate(pairs, start=1):
        if on_case:
            on_case(number, len(pairs), pair.case)
        try:
            case, remarks = _evaluate(pair, tolerance_mm)
        except RefusalError as error:
            not_evaluated.append(NotEvaluated(case=pair.case, reason=str(error), code=error.code))
            continue
        cases.append(case)
        notes |= dict.fromkeys(remarks)
    return Evaluation(
        tolerance_mm=tolerance_mm,
        cases=_with_every_label(cases),
        not_evaluated=tuple(sorted(not_evaluated, key=lambda item: item.case)),
        notes=tuple(notes),
    )


def _evaluate(pair: Pair, tolerance_mm: float) -> tuple[CaseScore, list[str]]:
    predicted, reference, notes = read_pair(pair)
    scores = evaluate_pair(predicted, reference, tolerance_mm)
    accuracy = pixel_accuracy(predicted.array, reference.array)
    case = CaseScore(case=pair.case, accuracy=accuracy, labels=tuple(scores))
    return case, [*notes, *_contradictions(_names(predicted), _names(reference))]


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
