"""Dice against minutes: volseg and nnunetv2 on one machine, the same cases and the same split.

    make nnunet-peers
    .venv/bin/python -m benchmarks.training.curves DATASET -o FOLDER [--budgets 2 4 6 8 15 30] [--only volseg]

Both are trained without fold 0 of volseg's split, and every point is the mean Dice of the labels over that fold's
cases, scored by `volseg.evaluation`. There are two kinds of points:

- *own schedule*: a run that was given so many minutes, at its end. Its learning rate falls to nothing by then. For
  volseg that is `volseg plan --minutes M` and `volseg train --minutes M`, and M is wall time with everything included:
  start, reading, validations, scoring. The weights are those of its best validation, which is what it keeps.
- *along a run*: weights of a longer run before its end, at a learning rate that is still high. For volseg these are
  the validations of the longest run, which aren't mirrored; the time after them (scoring, report) is counted as if it
  had come before them.

nnunetv2 is trained once, with its own plan, trainer and augmentation (two processes for that on two cores, which is its
default), for as many minutes as the longest budget; its schedule of a thousand epochs runs by the clock and ends with
them. Its clock starts at its first step: preprocessing is timed apart, and start, checkpoints and scoring aren't
counted. Its checkpoints are predicted by its own predictor without and with mirroring. Neither is post-processed; where
`--recipe` names one that post-processes, volseg's masks are.

A call goes on where the last one ended, run by run; one that was killed begins anew, since its minutes would be those
of two parts. Points go to `benchmarks/training/results/curves.json`, with a picture and a table beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks._machine import machine
from benchmarks.training._curves import Curves, Point, curves_table, draw
from benchmarks.training._peer import Peer
from benchmarks.training._results import RESULTS, load, plan, progress_rows, sha256, volseg
from volseg.config import Recipe, load_recipe
from volseg.datasets.cases import load_dataset
from volseg.evaluation import evaluate_folders
from volseg.files import write_atomically
from volseg.training.folds import Splits, make_splits

CURVES, PICTURE, TABLE = "curves.json", "curves.png", "curves.md"


class Bench:
    """The points so far, and what makes further ones.

    Parameters
    ----------
    given
        Of the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.dataset, self.folder, self.results, self.fold = given.dataset, given.output, given.results, given.fold
        self.recipe: Path | None = given.recipe
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results.mkdir(parents=True, exist_ok=True)
        about = json.loads((self.dataset / "dataset.json").read_text(encoding="utf-8"))
        self.names = {int(value): name for value, name in about["labels"].items()}
        path = self.results / CURVES
        empty = Curves(machine=machine("torch", "openvino"), fold=self.fold)
        self.curves = Curves.model_validate_json(path.read_bytes()) if path.exists() else empty
        if (self.curves.machine, self.curves.fold) != (empty.machine, empty.fold):
            raise SystemExit(f"{path}: holds points of another machine, other versions or another fold; see --results")

    def splits(self, recipe: Recipe) -> Splits:
        """Of the dataset."""
        return make_splits(load_dataset(self.dataset), recipe)

    def has(self, tool: str, kind: str, minutes: float) -> bool:
        """Whether there is such a point."""
        return any((p.tool, p.kind, p.planned_minutes) == (tool, kind, minutes) for p in self.curves.points)

    def keep(self, points: Sequence[Point], **about: Any) -> None:
        """Write further points, the picture and the table."""
        everything = sorted((*self.curves.points, *points), key=lambda p: (p.tool, p.kind, p.mirrored, p.minutes))
        self.curves = self.curves.model_copy(update={"points": tuple(everything), **about})
        write_atomically(self.results / CURVES, (self.curves.model_dump_json(indent=1) + "\n").encode())
        write_atomically(self.results / PICTURE, draw(self.curves))
        text = curves_table(self.curves)
        write_atomically(self.results / TABLE, f"{text}\n".encode())
        print(f"\n{text}\n", flush=True)

    def scored(self, masks: Path, cases: Sequence[str]) -> dict[str, Any]:
        """Dice of a folder of masks: of each label, and of their mean with its confidence interval."""
        evaluation = evaluate_folders(masks, self.dataset / "labelsTr")
        if (found := [case.case for case in evaluation.cases]) != sorted(cases):
            raise SystemExit(f"{masks}: {len(found)} cases were scored, and the fold holds out {len(cases)}")
        *labels, mean = evaluation.summaries()
        dice = mean.metrics["dice"]
        return {
            "dice": dice.mean,
            "interval": None if dice.ci_low is None else (dice.ci_low, dice.ci_high),
            "labels": {self.names[label.value or 0]: label.metrics["dice"].mean for label in labels},
        }

    def volseg(self, minutes: float, *, along: bool) -> None:
        """One run of volseg, unless there is its point; with its validations as points if `along`."""
        if self.has("volseg", "own schedule", minutes):
            return
        folder = self.folder / f"volseg_{minutes:g}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        recipe = self.recipe or folder / "recipe.yaml"
        plan(self.dataset, recipe, minutes)
        before, start = load(), time.perf_counter()
        options = ("--fold", str(self.fold), "--minutes", f"{minutes:g}")
        volseg("train", recipe, "--data", self.dataset, "-o", folder / "run", *options)
        wall = time.perf_counter() - start
        trained, run = load_recipe(recipe), folder / "run" / f"fold_{self.fold}"
        rows = progress_rows(run / "progress.csv")
        outside = wall - float(rows[-1]["seconds"])

        def point(row: dict[str, str], kind: Literal["own schedule", "along a run"], score: dict[str, Any]) -> Point:
            return Point(
                tool="volseg",
                kind=kind,
                planned_minutes=minutes,
                minutes=round((outside + float(row["seconds"])) / 60, 3),
                steps=int(row["step"]),
                mirrored=trained.mirroring.use and kind == "own schedule",
                load_before=before,
                recipe_sha256=sha256(recipe),
                **score,
            )

        held_out = self.splits(trained).folds[self.fold]
        points = [point(rows[-1], "own schedule", self.scored(run / "validation", held_out))]
        if along:
            points += [point(row, "along a run", _validation(row)) for row in rows[:-1] if row["dice"]]
        self.keep(points)

    def nnunet(self, minutes: float, marks: Sequence[float]) -> None:
        """Train nnunetv2, and score its checkpoints, unless there are its points."""
        if self.has("nnunetv2", "own schedule", minutes):
            return
        peer = Peer(self.folder / "nnunetv2", self.dataset)
        splits = self.splits(load_recipe(self._any_recipe(minutes)))
        preparation = peer.prepare(splits)
        before, held_out = load(), splits.folds[self.fold]
        training = peer.train(self.fold, minutes, marks)
        points = []
        for number, trained in enumerate(training["points"], start=1):
            for mirror, masks in peer.predict(training, self.fold, trained["checkpoint"], held_out).items():
                points.append(
                    Point(
                        tool="nnunetv2",
                        kind="own schedule" if number == len(training["points"]) else "along a run",
                        planned_minutes=minutes,
                        minutes=trained["minutes"],
                        steps=trained["steps"],
                        mirrored=mirror,
                        load_before=before,
                        **self.scored(masks, held_out),
                    )
                )
        about = {key: training[key] for key in ("versions", "threads", "patch", "batch", "features", "step_s")}
        about["augmenting_processes"] = training["augmenting_processes"]
        self.keep(points, nnunetv2={**about, "preprocessing_s": preparation})

    def _any_recipe(self, minutes: float) -> Path:
        """A recipe to split by: plans of one dataset all have the same folds and seed."""
        recipe = self.recipe or self.folder / "split.yaml"
        plan(self.dataset, recipe, minutes)
        return recipe


def _validation(row: dict[str, str]) -> dict[str, Any]:
    """Dice of a row of ``progress.csv``."""
    labels = {
        key.removeprefix("dice "): float(value) for key, value in row.items() if key.startswith("dice ") and value
    }
    return {"dice": float(row["dice"]), "labels": labels}


def main() -> None:
    """Make the points that aren't there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="MSD Task04, or another in its layout")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--budgets", type=float, nargs="+", default=[2, 4, 6, 8, 15, 30], help="minutes, a run each")
    parser.add_argument("--marks", type=float, nargs="*", default=[5, 10, 20], help="minutes of nnunetv2's checkpoints")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--recipe", type=Path, help="of every run; volseg plan makes one for each unless given")
    parser.add_argument("--only", choices=["volseg", "nnunetv2"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    bench, longest = Bench(given), max(given.budgets)
    if given.only != "nnunetv2":
        for minutes in sorted(given.budgets):
            bench.volseg(minutes, along=minutes == longest)
    if given.only != "volseg":
        bench.nnunet(longest, given.marks)


if __name__ == "__main__":
    main()
