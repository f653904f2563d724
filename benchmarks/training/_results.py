"""What the training benchmarks keep of their runs, and the tables made of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.inference._compare import ROOT
from volseg.config import Section
from volseg.files import write_atomically
from volseg.training.heldout import FoldScores, dice_rows, number
from volseg.training.usage import Usage

RESULTS = ROOT / "benchmarks" / "training" / "results"
#: nnU-Net's 3d_fullres in its own five-fold cross-validation of MSD Task04, mean of the two labels.
PUBLISHED = 0.8904


class FoldResult(Section):
    """``fold_<K>.json``: one fold of the cross-validation."""

    machine: str
    """Cores and versions."""
    threads: int
    """Of torch."""
    precision: str
    """That the network computes in."""
    minutes: float
    """What was given to plan and, unless it was `steps_given`, to train."""
    steps_given: int | None = None
    """Steps that were given to train instead of minutes."""
    recipe_sha256: str
    """Of ``recipe.yaml`` beside it."""
    fold: int
    """Number of the fold."""
    training_cases: int
    """Cases that it was trained on."""
    steps: int
    """Steps that it was trained for."""
    step_s: float
    """Seconds a step, the batch's making included: the median over the rows of ``progress.csv``."""
    usage: Usage
    """As the run's ``usage.json`` has it: from the first step's preparation on."""
    command_s: float
    """Wall seconds of ``volseg train``; of its last part where it was killed and went on."""
    uninterrupted: bool
    """Whether it ran in one part."""
    load_before: float
    """Mean number of running processes in the minute before the command."""
    load_after: float
    """The same at its end, its own included."""
    last_dice: float | None
    """Mean over labels of the last validation's Dice, neither mirrored nor post-processed.

    No choice among validations is in it.
    """
    scores: FoldScores
    """Of every case held out, by the weights of the best validation."""

    @property
    def cpu_share(self) -> float:
        """Processor time over wall time and threads: below 1 where something else ran, or cores waited."""
        return self.usage.cpu_seconds / (self.usage.wall_seconds * self.threads) if self.usage.wall_seconds else 0.0


def sha256(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load() -> float:
    """Mean number of running processes in the last minute."""
    return round(os.getloadavg()[0], 2)


def volseg(*arguments: str | Path) -> None:
    """Run one of volseg's commands; it must succeed."""
    command = [sys.executable, "-m", "volseg", *map(str, arguments)]
    print("+ volseg", *command[3:], file=sys.stderr, flush=True)
    if code := subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit(f"volseg {arguments[0]} ended with {code}")


def plan(dataset: Path, recipe: Path, minutes: float) -> None:
    """Plan a recipe, unless there is one: a plan times the machine, so a second one may be another."""
    if not recipe.exists():
        volseg("plan", dataset, "-o", recipe, "--minutes", f"{minutes:g}")


def progress_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a ``progress.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def step_seconds(rows: Sequence[Mapping[str, str]]) -> float:
    """Median seconds a step from one row of ``progress.csv`` to the next.

    Rows whose time holds a validation count only where there are no others.
    """
    found: dict[bool, list[float]] = {False: [], True: []}
    before = (0, 0.0)
    for row in rows:
        now = (int(row["step"]), float(row["seconds"]))
        found[bool(row["dice"])].append((now[1] - before[1]) / (now[0] - before[0]))
        before = now
    return median(found[False] or found[True])


def read_folds(folder: Path) -> list[FoldResult]:
    """Folds that are finished, by number."""
    found = [FoldResult.model_validate_json(path.read_bytes()) for path in folder.glob("fold_*.json")]
    return sorted(found, key=lambda result: result.fold)


def write_fold(folder: Path, result: FoldResult) -> None:
    """Keep a fold's result."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"fold_{result.fold}.json", _as_json(result).encode())


def _as_json(result: FoldResult) -> str:
    """One line a case: files of many lines hide what changed."""
    document = _rounded(result.model_dump(mode="json"))
    cases = document["scores"].pop("cases")
    head = json.dumps(document, indent=1).removesuffix("\n }\n}")
    lines = ",\n".join(f"   {json.dumps(case)}" for case in cases)
    return f'{head},\n  "cases": [\n{lines}\n  ]\n }}\n}}\n'


def _rounded(value: Any) -> Any:
    """Numbers to six digits, all the way down."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folds_table(results: Sequence[FoldResult]) -> str:
    """Dice by label and fold with confidence intervals, and what each fold took, as markdown."""
    scores = {result.fold: result.scores for result in results}
    head = ["Dice", *(f"fold {fold}" for fold in scores), "all", "95 % CI", "SD", "cases"]
    rows = []
    for name, folds, found in dice_rows(scores):
        interval = "-" if found.ci_low is None else f"{found.ci_low:.4f} to {found.ci_high:.4f}"
        rows.append([name, *map(number, (*folds, found.mean)), interval, number(found.std), str(found.n)])
    took = [
        [
            f"{result.fold}",
            f"{result.training_cases}",
            f"{result.steps}" + (" (given)" if result.steps_given else ""),
            f"{result.scores.step}",
            number(result.last_dice),
            f"{result.step_s:.3f}",
            f"{result.command_s / 60:.1f}" + ("" if result.uninterrupted else " (last part)"),
            f"{result.cpu_share:.0%}",
            f"{result.load_before:.1f}",
        ]
        for result in results
    ]
    lasts = [result.last_dice for result in results if result.last_dice is not None]
    took.append(["mean", "", "", "", number(mean(lasts) if lasts else None), "", "", "", ""])
    heads = ["fold", "trained on", "steps", "best at", "Dice of the last", "s a step", "minutes"]
    heads += ["of the threads' time used", "load before"]
    recipes = ", ".join(sorted({f"`{result.recipe_sha256[:12]}`" for result in results}))
    machines = "; ".join(sorted({f"{r.machine}, {r.threads} threads, {r.precision}" for r in results}))
    minutes = ", ".join(sorted({f"{result.minutes:g}" for result in results}))
    about = f"{minutes} minutes a fold; recipe {recipes}; {machines}."
    return "\n\n".join([about, markdown(head, rows), markdown(heads, took)])
