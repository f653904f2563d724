"""The split of a dataset into folds: fixed by the recipe's seed, all scans of a patient in one fold.

A run keeps it in ``splits.json``, and goes on only with the cases that it was made for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from volseg.config import Recipe, Section, validation_problem
from volseg.datasets.cases import Case
from volseg.errors import UsageError
from volseg.files import write_atomically

SPLITS = "splits.json"
#: The subject in a name of the Brain Imaging Data Structure: ``sub-01_ses-2_T1w``.
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+(?=_|$)")


def patient_of(case: Case) -> str:
    """Whose scan it is: the dataset's word on it, else the subject of a BIDS name, else the case is its own patient."""
    subject = _SUBJECT.match(case.name)
    return case.patient or (subject.group() if subject else case.name)


class Splits(Section):
    """``splits.json``."""

    seed: int
    """Seed of the recipe."""
    folds: tuple[tuple[str, ...], ...]
    """Names of the cases that each fold holds out."""
    held_out: tuple[str, ...]
    """Names of the cases that are neither trained on nor validated with."""
    patients: int
    """Number of patients in the folds; as many as cases, unless some have several."""


def _shuffled(cases: Sequence[Case], recipe: Recipe) -> list[list[Case]]:
    """Cases of each patient, the patients in random order."""
    groups: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.name):
        if case.name not in recipe.training.held_out:
            groups.setdefault(patient_of(case), []).append(case)
    patients = sorted(groups)
    random.Random(recipe.training.seed).shuffle(patients)
    return [groups[patient] for patient in patients]


def _parts(cases: Sequence[Case], recipe: Recipe) -> list[list[Case]]:
    """Cases of each fold: every patient goes to the fold that has the fewest cases so far."""
    parts: list[list[Case]] = [[] for _ in range(recipe.training.folds)]
    for group in _shuffled(cases, recipe):
        min(parts, key=len).extend(group)
    return parts


def split(cases: Sequence[Case], recipe: Recipe, fold: int | None) -> tuple[list[Case], list[Case]]:
    """Cases to train on and to validate with.

    Parameters
    ----------
    cases
        Cases of the dataset; those that the recipe holds out are in neither part.
    recipe
        Recipe, for the number of folds, the seed, and the cases held out.
    fold
        Number of the fold to validate with, or None: train on all.
    """
    if fold is None:
        kept = [case for case in cases if case.name not in recipe.training.held_out]
        return sorted(kept, key=lambda case: case.name), []
    validation = _parts(cases, recipe)[fold]
    names = {case.name for case in validation}
    return [case for group in _shuffled(cases, recipe) for case in group if case.name not in names], validation


def make_splits(cases: Sequence[Case], recipe: Recipe) -> Splits:
    """All folds, by name."""
    names = {case.name for case in cases}
    return Splits(
        seed=recipe.training.seed,
        folds=tuple(tuple(sorted(case.name for case in part)) for part in _parts(cases, recipe)),
        held_out=tuple(sorted(names & set(recipe.training.held_out))),
        patients=len(_shuffled(cases, recipe)),
    )


def read_splits(run: Path) -> Splits | None:
    """Folds of a run; None where it has none yet.

    Raises
    ------
    UsageError
        The file is damaged.
    """
    path = run / SPLITS
    try:
        return Splits.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        problem = validation_problem(error) if isinstance(error, ValidationError) else error.strerror
        raise UsageError(f"{path}: the folds of this run can't be read: {problem}") from error


def check_splits(run: Path, splits: Splits) -> None:
    """Refuse to go on in a run whose folds were made of other cases.

    Raises
    ------
    UsageError
        It says which cases came or went.
    """
    kept = read_splits(run)
    if kept is None or kept == splits:
        return
    before, now = ({name for part in (*each.folds, each.held_out) for name in part} for each in (kept, splits))
    changes = [
        f"{what} {len(names)} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("lacks", before - now), ("adds", now - before))
        if names
    ]
    told = f"the dataset {' and '.join(changes)}" if changes else "its cases are in other folds (another patient each?)"
    raise UsageError(
        f"{run / SPLITS}: the folds of this run are of other cases: {told}; go on with the same dataset, or choose"
        " another folder"
    )


def write_splits(run: Path, splits: Splits) -> None:
    """Keep the folds of a run."""
    write_atomically(run / SPLITS, (splits.model_dump_json(indent=1) + "\n").encode())
