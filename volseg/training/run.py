"""A training run on disk.

::

    RUN/recipe.json            the resolved recipe
    RUN/splits.json            which cases each fold holds out
    RUN/start.json             what the run fine-tunes, if anything
    RUN/cache/                 prepared cases; they may be removed at any time
    RUN/fold_<K|all>/          last.pt, best.pt (where a fold is held out), progress.csv, curves.png, usage.json, what
                               `volseg.training.heldout` writes, and at the end trained_on.json

Where several processes train, all see this folder. The main one writes in it; each writes the cases that it prepares,
and the masks of the held-out cases that it predicts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from volseg.config import Recipe, recipe_from_dict
from volseg.datasets.cases import Case
from volseg.errors import UsageError
from volseg.evaluation.scores import evaluate_pair
from volseg.files import write_atomically
from volseg.network.unet import check_window
from volseg.training.cache import CaseCache
from volseg.training.checkpoint import BEST, LAST, Progress, load_checkpoint, save_checkpoint
from volseg.training.dataset import TrainingCase
from volseg.training.events import logged, open_events
from volseg.training.finetune import Start, check_start, start_from, write_start
from volseg.training.folds import check_splits, make_splits, split, write_splits
from volseg.training.heldout import score_cases, write_cross_validation
from volseg.training.loop import Report, Trainer
from volseg.training.precision import choose_precision
from volseg.training.processes import ALONE, Processes
from volseg.training.report import write_report, write_worst
from volseg.training.trained_on import TRAINED_ON, describe_training
from volseg.training.usage import Meter

RECIPE, CACHE = "recipe.json", "cache"


@dataclass(frozen=True)
class Budget:
    """How long to train: wall minutes (everything included), steps, or as the recipe says."""

    minutes: float | None = None
    steps: int | None = None


def fold_name(fold: int | None) -> str:
    """``all`` for the model of every case."""
    return "all" if fold is None else str(fold)


def _checked_split(recipe: Recipe, cases: Sequence[Case], fold: int | None) -> tuple[list[Case], list[Case]]:
    """Cases to train on and to validate with; UsageError where recipe, cases and fold don't go together."""
    folds = recipe.training.folds
    if fold is not None and not 0 <= fold < folds:
        raise UsageError(f"fold {fold} isn't one of the recipe's: 0 to {folds - 1}")
    try:
        check_window(recipe.window, recipe.network)
    except ValueError as error:
        raise UsageError(f"recipe {recipe.name}: window: {error}") from error
    training, validation = split(cases, recipe, fold)
    if fold is not None and not validation:
        raise UsageError(f"fold {fold} holds out no case: {len(training)} cases don't fill {folds} folds")
    if absent := [case.name for case in validation if not case.images]:
        raise UsageError(
            f"fold {fold} would validate with label maps alone ({', '.join(absent[:3])}): train without --fold, and"
            " name cases for a test in the recipe's training.held_out"
        )
    if not training:
        raise UsageError("no case to train on: the recipe holds out, or the fold validates with, all of them")
    return training, validation


def _check_run(recipe: Recipe, run: Path, folder: Path, *, resume: bool) -> None:
    """UsageError where the folder holds something that this call would overwrite, or go on with otherwise."""
    if (folder / LAST).exists() and not resume:
        raise UsageError(f"{folder}: holds a run already; go on with --resume, or choose another folder")
    path = run / RECIPE
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path}: the recipe of this run can't be read: {error}") from error
    # Read as a recipe: one of an earlier version lacks fields that have come since.
    if recipe_from_dict(kept, str(path)) != recipe:
        raise UsageError(f"{run}: holds a run with another recipe ({RECIPE}); use that one, or choose another folder")


def _content(recipe: Recipe) -> bytes:
    return recipe.model_dump_json(indent=1).encode()


def _make_folder(folder: Path) -> None:
    """Make a fold's folder; what a killed run left half written is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: this folder can't be made: {error.strerror}") from error
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _prepared(
    store: CaseCache, parts: Sequence[Sequence[Case]], processes: Processes
) -> tuple[list[TrainingCase], list[TrainingCase]]:
    """Cases to train on and to validate with; several processes prepare a share each, and then read those of all."""
    if processes.count > 1:
        with processes.together():
            for case in processes.share([case for part in parts for case in part]):
                store.get(case)
    with processes.together():
        training, validation = ([store.get(case) for case in part] for part in parts)
    return training, validation


def _scoring_seconds(validation: Sequence[TrainingCase]) -> float:
    """About what `score_cases` takes beside the network: the first case against itself, for each of them."""
    if not validation:
        return 0.0
    start = time.perf_counter()
    evaluate_pair(validation[0].reference, validation[0].reference)
    return 2 * (time.perf_counter() - start) * len(validation)


def train_fold(  # noqa: C901, PLR0913 (the steps of a training, in their order)
    recipe: Recipe,
    cases: Sequence[Case],
    run: Path,
    fold: int | None,
    budget: Budget,
    *,
    resume: bool,
    report: Report,
    note: Callable[[str], None] = lambda _: None,
    cache: Path | None = None,
    start: Start | None = None,
    written: str = "",
    processes: Processes = ALONE,
) -> Progress:
    """Train one model of a run, and score it on the cases that its fold holds out.

    Of several processes each calls this with the same arguments.

    Parameters
    ----------
    recipe
        Recipe to train.
    cases
        The whole dataset.
    run
        The run's folder.
    fold
        Fold to hold out and validate with; None: train on all.
    budget
        Length of the training, in steps or in minutes.
    resume
        Whether to go on from the run's last checkpoint, where there is one; a fold that is finished stays as it is.
    report
        A function for progress; see `Trainer`.
    note
        A function that takes a line for each thing that is unusual.
    cache
        Folder of prepared cases, ``RUN/cache`` unless given.
    start
        Model to fine-tune.
    written
        The recipe as its file has it, with its comments, for the report.
    processes
        Processes that train the model together, and the device of this one. The main one alone calls `report` and
        `note`.

    Raises
    ------
    UsageError
        The folder holds a run already and `resume` is off, or one with another recipe, other cases or another start;
        the fold isn't one of the recipe's, or holds out no case; the window doesn't fit the network; the precision or
        the normalisation isn't one of the device's.
    TrainingError
        Training can't go on, or another process failed.
    RefusalError
        A case that can't be used; it names the file.
    """
    started = time.perf_counter()
    folder = run / f"fold_{fold_name(fold)}"
    if not processes.main:
        report, note = (lambda *_: None), (lambda _: None)
    # None writes before all have looked.
    with processes.together():
        chosen, splits = _checked_split(recipe, cases, fold), make_splits(cases, recipe)
        _check_device(recipe, processes)
        _check_run(recipe, run, folder, resume=resume)
        check_splits(run, splits)
        check_start(run, start)
    if processes.from_main((folder / TRAINED_ON).exists()):
        return Progress(**load_checkpoint(folder / LAST)["progress"])
    goes_on = processes.from_main((folder / LAST).exists())
    training, validation = _prepared(CaseCache(cache or run / CACHE, recipe, note), chosen, processes)
    _tell(recipe, training, validation, note)
    with processes.together():
        if processes.main:
            _make_folder(folder)
            write_atomically(run / RECIPE, _content(recipe))
            write_splits(run, splits)
            if start is not None:
                write_start(run, start)
    meter = Meter(folder, processes)
    trainer = Trainer(recipe, training, validation, folder, meter.around(report), processes)
    with processes.together():
        if start is not None:
            for text in start_from(trainer, start, fold_name(fold), {case.name for case in validation}):
                note(text)
        if goes_on:
            trainer.resume()
    if not goes_on:
        trainer.progress.total = budget.steps or recipe.training.steps
        if budget.minutes is not None:
            left = budget.minutes * 60 - (time.perf_counter() - started)
            trainer.progress.total = trainer.plan_steps(left - _scoring_seconds(processes.share(validation)))
    with processes.together():
        if processes.main and not goes_on:
            # From now on the number of steps is fixed, and a run that is killed and resumed is the one that wasn't.
            save_checkpoint(folder / LAST, trainer.state())
        events = open_events(folder, trainer.progress.step) if processes.main else None
        if events is not None:
            trainer.report = logged(trainer, events)
    progress = trainer.run(trainer.progress.total)
    if events is not None:
        events.close()
    _finish(trainer, run, written, meter)
    return progress


def _check_device(recipe: Recipe, processes: Processes) -> None:
    """UsageError where the recipe can't be trained by these processes on their device."""
    device = processes.device.type
    choose_precision(recipe.training.precision, device, native_bf16=False)
    if recipe.network.normalisation == "batch" and processes.count > 1 and device == "cpu":
        raise UsageError(
            f"recipe {recipe.name}: normalisation batch is over the patches of one process on a CPU, and these are"
            f" {processes.count}: give instance or group, or train with one process, or on GPUs"
        )


def _finish(trainer: Trainer, run: Path, written: str, meter: Meter) -> None:
    """Score what was trained on the cases that were held out, and write what is told of it."""
    recipe, folder, processes = trainer.recipe, trainer.folder, trainer.processes
    progress = trainer.progress
    with processes.together():
        best = load_checkpoint(folder / (BEST if (folder / BEST).exists() else LAST)) if trainer.validation else {}
    if best:
        step = best["progress"]["step"]
        engine = trainer.engine(best["average"])
        scores, masks = score_cases(recipe, trainer.validation, engine, folder, step, processes)
        with processes.together():
            write_worst(folder, scores, trainer.validation, masks)
    with processes.together():
        meter.write()
        if processes.main:
            seconds, synthesis = progress.history[-1]["seconds"], recipe.training.synthesis
            described = describe_training(trainer.training, progress.step, seconds, synthesis)
            write_atomically(folder / TRAINED_ON, described.model_dump_json(indent=1).encode())
            write_cross_validation(run)
            write_report(run, written)


def _tell(
    recipe: Recipe, training: Sequence[TrainingCase], validation: Sequence[TrainingCase], note: Callable[[str], None]
) -> None:
    """What is unusual about the cases."""
    for case in (*training, *validation):
        for text in case.notes:
            note(f"{case.name}: {text}")
    if not any(case.foreground for case in training):
        note("no training case has a labelled voxel: the network will learn to find nothing")
    for label in recipe.labels:
        values = set(label.members or (label.value,))
        if not any(values & set(case.foreground) for case in training) and any(case.foreground for case in training):
            note(f"no training case has a voxel of {label.name!r}: the network will not learn it")
    sizes = [case.prepared.tensor_CDHW.shape[1:] for case in training]
    if all(any(size < length for size, length in zip(shape, recipe.window, strict=True)) for shape in sizes):
        largest = " x ".join(str(max(shape[axis] for shape in sizes)) for axis in range(3))
        window = " x ".join(map(str, recipe.window))
        note(f"every training case is smaller than the window of {window} (at most {largest}): 0 is put around them")
