"""Five-fold cross-validation as a user would run it: `volseg plan`, then `volseg train` for one fold after the other.

    .venv/bin/python -m benchmarks.training.cross_validation DATASET -o FOLDER [--minutes 30] [--folds 0 1 2 3 4]

FOLDER gets the planned recipe and the run, and lies outside the repository. After each fold its scores, and what it
took, are written to `benchmarks/training/results/cross_validation`, to be committed. A call goes on where the last one
ended: a fold with a result stays, and one that was killed goes on from its checkpoint.

--steps trains a fold for as many steps in fp32 instead: on a faster machine, what a slower one computes in its minutes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks._machine import machine
from benchmarks.training._results import (
    RESULTS,
    FoldResult,
    folds_table,
    load,
    plan,
    progress_rows,
    read_folds,
    sha256,
    step_seconds,
    volseg,
    write_fold,
)
from volseg.config import load_recipe
from volseg.files import write_atomically
from volseg.machine import native_bf16
from volseg.training.checkpoint import LAST
from volseg.training.folds import read_splits
from volseg.training.heldout import read_scores
from volseg.training.usage import read_usage

TABLE, RECIPE = "table.md", "recipe.yaml"


def keep_recipe(recipe: Path, results: Path, minutes: float) -> None:
    """Put the recipe beside the results; those that are there must be of the same recipe and minutes."""
    results.mkdir(parents=True, exist_ok=True)
    others = [r.fold for r in read_folds(results) if r.recipe_sha256 != sha256(recipe) or r.minutes != minutes]
    if others:
        raise SystemExit(
            f"{results}: has results of another recipe or of other minutes (fold {', '.join(map(str, others))});"
            " remove them, or name another folder by --results"
        )
    write_atomically(results / RECIPE, recipe.read_bytes())


def as_slower(recipe: Path, folder: Path) -> Path:
    """The recipe in fp32, whatever this machine computes in."""
    planned = recipe.read_text(encoding="utf-8")
    found = folder / f"fp32_{RECIPE}"
    found.write_text(planned.replace("\ntraining:\n", '\ntraining:\n  precision: "fp32"\n'), encoding="utf-8")
    assert load_recipe(found).training.precision == "fp32"
    return found


def train_fold(dataset: Path, recipe: Path, run: Path, fold: int, minutes: float, steps: int | None) -> FoldResult:
    """Train and score one fold, or go on with it."""
    folder = run / f"fold_{fold}"
    uninterrupted = not (folder / LAST).exists()
    before, start = load(), time.perf_counter()
    limit = ("--steps", f"{steps}") if steps else ("--minutes", f"{minutes:g}")
    trained = as_slower(recipe, run.parent) if steps else recipe
    volseg("train", trained, "--data", dataset, "-o", run, "--fold", str(fold), *limit, "--resume")
    rows = progress_rows(folder / "progress.csv")
    splits = read_splits(run)
    assert splits is not None
    return FoldResult(
        machine=machine("torch", "openvino"),
        threads=torch.get_num_threads(),
        precision="bf16" if native_bf16() and not steps else "fp32",
        minutes=minutes,
        steps_given=steps,
        recipe_sha256=sha256(recipe),
        fold=fold,
        training_cases=sum(len(cases) for number, cases in enumerate(splits.folds) if number != fold),
        steps=int(rows[-1]["step"]),
        step_s=round(step_seconds(rows), 4),
        usage=read_usage(folder),
        command_s=round(time.perf_counter() - start, 1),
        uninterrupted=uninterrupted,
        load_before=before,
        load_after=load(),
        last_dice=float(rows[-1]["dice"]) if rows[-1]["dice"] else None,
        scores=read_scores(run)[fold],
    )


def main() -> None:
    """Run the folds that have no result yet, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=30.0, help="wall minutes of a fold, everything included")
    parser.add_argument("--steps", type=int, help="instead of the minutes, in fp32")
    parser.add_argument("--folds", type=int, nargs="+", help="all of the recipe's unless given")
    parser.add_argument("--recipe", type=Path, help="train this one; volseg plan makes one unless given")
    parser.add_argument("--results", type=Path, default=RESULTS / "cross_validation")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    recipe = given.recipe or given.output / RECIPE
    if given.recipe is None:
        plan(given.dataset, recipe, given.minutes)
    keep_recipe(recipe, given.results, given.minutes)
    for fold in given.folds or range(load_recipe(recipe).training.folds):
        if not (given.results / f"fold_{fold}.json").exists():
            result = train_fold(given.dataset, recipe, given.output / "run", fold, given.minutes, given.steps)
            write_fold(given.results, result)
        text = folds_table(read_folds(given.results))
        write_atomically(given.results / TABLE, f"{text}\n".encode())
        print(f"\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
