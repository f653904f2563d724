"""``volseg train``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.errors import UsageError

if TYPE_CHECKING:
    from volseg.config import Recipe
    from volseg.training.processes import Processes


def _folds(text: str | None, count: int) -> list[int | None]:
    if text is None:
        return [None]
    if text == "cv":
        return list(range(count))
    if text.isdecimal():
        return [int(text)]
    raise UsageError(f"--fold {text}: give a number from 0 to {count - 1}, or cv for all of them")


def _leave() -> None:
    """End one of several processes, as a success and without Python's own ending.

    gloo's threads outlive their group. One that lets go of a tensor while Python ends can abort the process, and the
    launcher would call a finished training failed (https://github.com/pytorch/pytorch/pull/179291).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _remarks(recipe: Recipe, absent: Sequence[str], processes: Processes) -> Iterator[str]:
    """What is worth a line before a training begins; `absent` are cases that the recipe holds out and nobody has."""
    from volseg.training import events

    if processes.count > 1:
        batch = processes.count * recipe.training.batch_size
        yield f"{processes.count} processes on {processes.device.type} train together: {batch} patches a batch"
    if absent:
        yield f"the recipe holds out cases that the dataset doesn't have: {', '.join(absent)}"
    if not events.installed():
        yield events.ABSENT


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.")],
    data: Annotated[
        Path, typer.Option("--data", help="Dataset: a folder as MSD, nnU-Net, TotalSegmentator or BraTS, or a CSV.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    fold: Annotated[
        str | None, typer.Option("--fold", help="Fold to hold out, or cv for all; otherwise train on every case.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Wall minutes a model, everything included.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps a model.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, to the number of steps that it holds.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Fine-tune this model: its layers that fit are taken.")
    ] = None,
    freeze: Annotated[
        int, typer.Option(min=0, help="With --from: stages of the encoder that stay as they are, from the first on.")
    ] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases, which several runs may share; RUN/cache otherwise.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
) -> None:
    """Train a recipe on a dataset; docs/clusters.md says how several processes or machines do it together."""
    from volseg.config import load_recipe
    from volseg.datasets.cases import load_dataset
    from volseg.files import read_text

    if minutes is not None and steps is not None:
        raise UsageError("give --minutes or --steps, not both")
    if freeze and start is None:
        raise UsageError("--freeze is for --from: random weights would stay random")
    loaded = load_recipe(recipe)
    written = read_text(recipe)
    folds = _folds(fold, loaded.training.folds)
    cases = load_dataset(data)
    absent = sorted(set(loaded.training.held_out) - {case.name for case in cases})

    from rich.console import Console

    from volseg.cli.training_table import board, held_out_table
    from volseg.models import model_path
    from volseg.models.folder import read_model
    from volseg.training.cache import CaseCache
    from volseg.training.finetune import Start
    from volseg.training.heldout import read_scores
    from volseg.training.processes import launched
    from volseg.training.run import CACHE, Budget, fold_name, train_fold

    begin = None if start is None else Start(read_model(model_path(start)), freeze)
    names = {number: f"fold {fold_name(number)}" for number in folds}
    labels = [label.name for label in loaded.labels]
    with launched(device) as processes, board(list(names.values()), labels, silent=not processes.main) as shown:
        for text in _remarks(loaded, absent, processes):
            shown.say(text)
        for number, name in names.items():
            shown.state(name, f"reading {len(cases)} cases")
            progress = train_fold(
                loaded,
                cases,
                output,
                number,
                Budget(minutes, steps),
                resume=resume,
                report=shown.reporter(name),
                note=shown.say,
                cache=cache,
                start=begin,
                written=written,
                processes=processes,
            )
            best = "" if progress.best is None else f", best Dice {progress.best:.4f} at step {progress.best_step}"
            shown.state(name, "finished")
            shown.say(f"{name}  finished at step {progress.step}{best}")
        stored = CaseCache(cache or output / CACHE, loaded)
        if taken := stored.bytes():
            shown.say(f"{stored.folder}: {taken / 1e6:.0f} MB of prepared cases, for later runs; it may be removed")
    if processes.main:
        if len(folds) > 1:
            Console(stderr=True, highlight=False, markup=False).print(held_out_table(read_scores(output)))
        print(f"{output}: finished. Make a model of it: volseg model pack {output} -o MODEL")
    if processes.count > 1:
        _leave()
