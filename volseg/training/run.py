"""A training run on disk, and the model folder that is packed from it.

::

    RUN/recipe.json            the resolved recipe
    RUN/fold_<K|all>/          trained_on.json, last.pt, best.pt (where a fold is held out), progress.csv, curves.png
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

import volseg
from volseg.config import Recipe, recipe_from_dict, validation_problem
from volseg.errors import ModelError, TrainingError, UsageError
from volseg.files import write_atomically
from volseg.loaders.dataset import Case
from volseg.models.folder import ModelFolder, Span, TrainedOn, spans_text, write_model
from volseg.network.unet import check_window
from volseg.training.checkpoint import BEST, LAST, Progress, load_checkpoint
from volseg.training.dataset import TrainingCase, prepare_case
from volseg.training.folds import split
from volseg.training.loop import Report, Trainer
from volseg.volume import LabelVolume

RECIPE, TRAINED_ON = "recipe.json", "trained_on.json"


@dataclass(frozen=True)
class Budget:
    """How long to train: wall minutes (everything included), steps, or as the recipe says."""

    minutes: float | None = None
    steps: int | None = None


def fold_name(fold: int | None) -> str:
    """``all`` for the model of every case."""
    return "all" if fold is None else str(fold)


def _spans(rows: Sequence[Sequence[float]]) -> list[Span]:
    table = np.array(rows, dtype=np.float64)
    return [(round(float(low), 4), round(float(high), 4)) for low, high in zip(table.min(0), table.max(0), strict=True)]


def _volumes(references: Sequence[LabelVolume]) -> dict[str, Span]:
    rows = [[count * mask.geometry.voxel_volume_ml for count in mask.voxel_counts().values()] for mask in references]
    return dict(zip([label.name for label in references[0].labels], _spans(rows), strict=True))


def describe_training(cases: Sequence[TrainingCase], steps: int, seconds: float) -> TrainedOn:
    """What goes into the model's manifest about its training cases."""
    turned = [case.prepared.source.turned(case.prepared.axes) for case in cases]
    spacing, extent = _spans([g.spacing_mm for g in turned]), _spans([g.extent_mm for g in turned])
    percentiles = np.median([case.intensity for case in cases], axis=0)
    return TrainedOn(
        cases=tuple(sorted(case.name for case in cases)),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        extent_mm=(extent[0], extent[1], extent[2]),
        intensity=tuple((float(low), float(high)) for low, high in percentiles),
        volumes_ml=_volumes([case.reference for case in cases]),
        steps=steps,
        seconds=seconds,
        threads=torch.get_num_threads(),
        volseg=volseg.__version__,
    )


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
    if not training:
        raise UsageError("no case to train on: the recipe holds out, or the fold validates with, all of them")
    return training, validation


def train_fold(
    recipe: Recipe,
    cases: Sequence[Case],
    run: Path,
    fold: int | None,
    budget: Budget,
    *,
    resume: bool,
    report: Report,
    note: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Train one model of a run.

    Parameters
    ----------
    recipe
        What to train.
    cases
        The whole dataset.
    run
        The run's folder.
    fold
        Fold to hold out and validate with; None: train on all.
    budget
        How long.
    resume
        Go on from the run's last checkpoint, where there is one.
    report
        See `Trainer`.
    note
        Takes a line for each thing that is unusual about a case's labels.

    Raises
    ------
    UsageError
        The folder holds a run already and `resume` is off, or one with another recipe; the fold isn't one of the
        recipe's, or holds out no case; the window doesn't fit the network.
    TrainingError
        Training can't go on.
    RefusalError
        A case that can't be used; it names the file.
    """
    started = time.perf_counter()
    folder = run / f"fold_{fold_name(fold)}"
    goes_on = (folder / LAST).exists()
    content = recipe.model_dump_json(indent=1).encode()
    chosen = _checked_split(recipe, cases, fold)
    if goes_on and not resume:
        raise UsageError(f"{folder}: holds a run already; go on with --resume, or choose another folder")
    if (run / RECIPE).exists() and (run / RECIPE).read_bytes() != content:
        raise UsageError(f"{run}: holds a run with another recipe ({RECIPE}); use that one, or choose another folder")
    training, validation = ([prepare_case(case, recipe) for case in part] for part in chosen)
    for case in (*training, *validation):
        for text in case.notes:
            note(f"{case.name}: {text}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: this folder can't be made: {error.strerror}") from error
    write_atomically(run / RECIPE, content)
    trainer = Trainer(recipe, training, validation, folder, report)
    total = budget.steps or recipe.training.steps
    if goes_on:
        trainer.resume()
    elif budget.minutes is not None:
        total = trainer.plan_steps(budget.minutes * 60 - (time.perf_counter() - started))
    progress = trainer.run(total)
    described = describe_training(training, progress.step, progress.history[-1]["seconds"])
    write_atomically(folder / TRAINED_ON, described.model_dump_json(indent=1).encode())
    return progress


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read; is its folder a finished run of volseg train? ({error})") from error


def _read_trained_on(path: Path) -> TrainedOn:
    try:
        return TrainedOn.model_validate(_read_json(path))
    except ValidationError as error:
        raise ModelError(f"{path}: {validation_problem(error)}") from error


def _merge(parts: Sequence[TrainedOn]) -> TrainedOn:
    """One description of several folds' training cases."""

    def widest(spans: Sequence[Span]) -> Span:
        return min(low for low, _ in spans), max(high for _, high in spans)

    first = parts[0]
    volumes = [part.volumes_ml for part in parts if part.volumes_ml is not None]
    known = len(volumes) == len(parts)  # not in runs of earlier versions
    by_axis = {
        name: tuple(widest(spans) for spans in zip(*(getattr(part, name) for part in parts), strict=True))
        for name in ("spacing_mm", "extent_mm", "intensity")
    }
    return first.model_copy(
        update={
            **by_axis,
            "volumes_ml": {name: widest([each[name] for each in volumes]) for name in volumes[0]} if known else None,
            "cases": tuple(sorted({name for part in parts for name in part.cases})),
            "steps": max(part.steps or 0 for part in parts),
            "seconds": round(sum(part.seconds or 0.0 for part in parts), 1),
        }
    )


def pack_run(run: Path, folder: Path) -> ModelFolder:
    """Make a model folder of a finished run: every fold in it becomes a member of the ensemble.

    The weights are the averaged ones: those of the best validation where a fold was held out, the last ones otherwise.

    Raises
    ------
    ModelError
        No run there, or one with an unfinished fold.
    """
    recipe = recipe_from_dict(_read_json(run / RECIPE), str(run / RECIPE))
    states: dict[str, dict[str, Tensor]] = {}
    parts, metrics = [], {}
    for path in sorted(run.glob("fold_*")):
        name = path.name.removeprefix("fold_")
        if not (path / TRAINED_ON).exists():
            raise ModelError(f"{path}: is unfinished; go on with volseg train --resume, or remove it")
        try:
            state = load_checkpoint(path / (BEST if (path / BEST).exists() else LAST))
        except TrainingError as error:
            raise ModelError(str(error)) from error
        states[name] = state["average"]
        parts.append(_read_trained_on(path / TRAINED_ON))
        rows = [row for row in state["progress"]["history"] if row["dice"] is not None]
        metrics[name] = {key: value for key, value in rows[-1].items() if key.startswith("dice")} if rows else {}
    if not states:
        raise ModelError(f"{run}: holds no finished training (fold_all, fold_0, ...)")
    merged = _merge(parts)
    return write_model(
        folder, recipe, merged, states, card=_card(recipe, merged, metrics), metrics={"validation": metrics}
    )


def _card(recipe: Recipe, trained_on: TrainedOn, metrics: dict[str, dict[str, float]]) -> str:
    """A model card with what is known; what the data are and where it fails is for a person to add."""
    inputs = ", ".join(f"{channel.name} ({'/'.join(channel.modalities)})" for channel in recipe.channels)
    lines = [
        f"# {recipe.name} {recipe.version}",
        "",
        recipe.description or "No description.",
        "",
        f"- labels: {', '.join(f'{label.value} {label.name}' for label in recipe.labels)}",
        f"- input: {inputs}",
        f"- trained on {len(trained_on.cases)} cases (listed in model.json), {trained_on.steps} steps,"
        f" {trained_on.minutes:.0f} minutes on {trained_on.threads} threads, with volseg {trained_on.volseg}",
        f"- their spacing: {spans_text(trained_on.spacing_mm)}, their field of view:"
        f" {spans_text(trained_on.extent_mm)} (D x H x W, {recipe.orientation})",
        "",
        "| fold | " + " | ".join(label.name for label in recipe.labels) + " |",
        "|---|" + "---|" * len(recipe.labels),
    ]
    for fold, scores in metrics.items():
        cells = [scores.get(f"dice {label.name}") for label in recipe.labels]
        shown = ["not validated" if cell is None else f"Dice {cell:.4f}" for cell in cells]
        lines.append(f"| {fold} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
