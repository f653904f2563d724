"""``volseg train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volseg.cli.progress import Line, progress_line
from volseg.errors import UsageError

if TYPE_CHECKING:
    from volseg.training.checkpoint import Progress
    from volseg.training.loop import Report


def _folds(text: str | None, count: int) -> list[int | None]:
    if text is None:
        return [None]
    if text == "cv":
        return list(range(count))
    if text.isdecimal():
        return [int(text)]
    raise UsageError(f"--fold {text}: give a number from 0 to {count - 1}, or cv for all of them")


def _reporter(line: Line, name: str) -> Report:
    begun: list[tuple[float, int]] = []

    def report(progress: Progress, row: dict[str, Any]) -> None:
        # Reading, planning and the steps before a resumed run's first aren't counted in the time that a step takes.
        begun.append((time.monotonic(), progress.step))
        seconds, steps = begun[-1][0] - begun[0][0], begun[-1][1] - begun[0][1]
        left = f"  {seconds / steps * (progress.total - progress.step) / 60:.1f} min left" if steps else ""
        text = f"{name}  step {progress.step}/{progress.total}  loss {row['loss']:.4f}{left}"
        if row["dice"] is not None:
            line.say(f"{name}  step {progress.step}/{progress.total}  Dice {row['dice']:.4f} on held-out cases")
        line.update(text)

    return report


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.")],
    data: Annotated[Path, typer.Option("--data", help="Dataset: a folder in MSD or nnU-Net layout, or a CSV.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    fold: Annotated[
        str | None, typer.Option("--fold", help="Fold to hold out, or cv for all; otherwise train on every case.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Wall minutes a model, everything included.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps a model.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, to the number of steps that it holds.")
    ] = False,
) -> None:
    """Train a recipe on a dataset."""
    from volseg.config import load_recipe
    from volseg.loaders.dataset import load_dataset

    if minutes is not None and steps is not None:
        raise UsageError("give --minutes or --steps, not both")
    loaded = load_recipe(recipe)
    folds = _folds(fold, loaded.training.folds)
    cases = load_dataset(data)
    absent = sorted(set(loaded.training.held_out) - {case.name for case in cases})

    from volseg.training.run import Budget, fold_name, train_fold

    with progress_line() as line:
        if absent:
            line.say(f"the recipe holds out cases that the dataset doesn't have: {', '.join(absent)}")
        for number in folds:
            name = f"fold {fold_name(number)}"
            line.update(f"{name}  reading {len(cases)} cases")
            progress = train_fold(
                loaded,
                cases,
                output,
                number,
                Budget(minutes, steps),
                resume=resume,
                report=_reporter(line, name),
                note=line.say,
            )
            best = "" if progress.best is None else f", best Dice {progress.best:.4f} at step {progress.best_step}"
            line.say(f"{name}  finished at step {progress.step}{best}")
    print(f"{output}: finished. Make a model of it: volseg model pack {output} -o MODEL")
