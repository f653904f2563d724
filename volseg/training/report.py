"""``RUN/report.html``: what was trained, how it went, and where it fails."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from volseg.config import Recipe, recipe_from_dict
from volseg.evaluation.statistics import METRICS, Statistics
from volseg.files import write_atomically
from volseg.models.folder import spans_text
from volseg.report.comparison import draw_comparison
from volseg.report.html import Page
from volseg.report.pictures import png
from volseg.training.dataset import TrainingCase
from volseg.training.finetune import read_start
from volseg.training.folds import read_splits
from volseg.training.heldout import (
    CaseScores,
    FoldScores,
    choose_postprocessing,
    dice_rows,
    number,
    read_scores,
    summaries,
)
from volseg.training.trained_on import TRAINED_ON, merge, read_trained_on
from volseg.training.usage import USAGE, Usage, read_usage
from volseg.volume import LabelVolume, Volume

REPORT = "report.html"
#: Cases of a fold that are drawn, and of all folds that the report shows.
WORST = 3


def worst(cases: Sequence[CaseScores], count: int = WORST) -> list[CaseScores]:
    """The cases of the lowest mean Dice, lowest first; those without a label in a mask don't count."""
    return sorted((case for case in cases if case.dice is not None), key=lambda case: (case.dice or 0.0, case.case))[
        :count
    ]


def shown_volume(case: TrainingCase) -> Volume:
    """What the network sees of a case's first channel, put on the source's grid by the nearest voxel."""
    tensor, axes, box = case.prepared.tensor_CDHW[0].numpy(), case.prepared.axes, case.prepared.box
    turned = np.full(case.prepared.zoomed or case.prepared.turned_shape, tensor.min(), np.float32)
    nearest = (
        ((np.arange(size) + 0.5) * have / size).astype(int) for size, have in zip(box.shape, tensor.shape, strict=True)
    )
    turned[box.slices] = tensor[np.ix_(*nearest)]
    if turned.shape != case.prepared.turned_shape:
        back = (
            ((np.arange(size) + 0.5) * have / size).astype(int)
            for size, have in zip(case.prepared.turned_shape, turned.shape, strict=True)
        )
        turned = turned[np.ix_(*back)]
    return Volume(axes.inverse().apply(turned), case.prepared.grid, case.reference.source)


def write_worst(
    folder: Path, scores: FoldScores, cases: Sequence[TrainingCase], masks: Mapping[str, LabelVolume]
) -> None:
    """Draw the fold's worst cases, ``worst_1.png`` first; those of which there are `masks`."""
    by_name = {case.name: case for case in cases}
    for rank, found in enumerate(worst(scores.cases), start=1):
        if found.case not in masks:  # another process predicted it, and draws it
            continue
        case = by_name[found.case]
        text = f"{case.name}, mean Dice {number(found.dice)}"
        picture = draw_comparison(shown_volume(case), masks[case.name], case.reference, text)
        write_atomically(folder / f"worst_{rank}.png", png(picture))


def write_report(run: Path, written: str = "") -> None:
    """Write the report of what there is of a run; `written` is the recipe with its comments, which are shown."""
    recipe = recipe_from_dict(json.loads((run / "recipe.json").read_text(encoding="utf-8")), str(run / "recipe.json"))
    scores, folds = read_scores(run), sorted(run.glob("fold_*"))
    page = Page(f"Training of {recipe.name} {recipe.version}", recipe.description)
    _about(page, run, recipe)
    _dataset(page, run, recipe)
    if scores:
        _scores(page, recipe, scores)
        _worst_cases(page, run, scores)
    page.heading("Curves")
    for folder in folds:
        if (folder / "curves.png").exists():
            page.picture((folder / "curves.png").read_bytes(), folder.name)
    _usage(page, folds)
    page.heading("Recipe")
    if written:
        page.folded("As written, with the reasons that it states", written)
    page.folded("Resolved", recipe.model_dump_json(indent=2))
    write_atomically(run / REPORT, page.render().encode())


def _about(page: Page, run: Path, recipe: Recipe) -> None:
    splits, start = read_splits(run), read_start(run)
    if splits:
        cases = sum(len(part) for part in splits.folds)
        held = f"; {len(splits.held_out)} kept apart" if splits.held_out else ""
        grouped = f" of {splits.patients} patients" if splits.patients != cases else ""
        page.paragraph(f"{cases} cases{grouped} in {len(splits.folds)} folds (seed {splits.seed}){held}.")
    page.paragraph(f"Started from {f'model {start.model} (sha256 {start.sha256})' if start else 'random weights'}.")
    page.paragraph(f"Labels: {', '.join(label.name for label in recipe.labels)}.")


def _dataset(page: Page, run: Path, recipe: Recipe) -> None:
    """Fingerprint of the training cases, as the model will hold it."""
    parts = [read_trained_on(path) for path in sorted(run.glob(f"fold_*/{TRAINED_ON}"))]
    if not parts:
        return
    merged = merge(parts)
    rows = [["Cases", str(len(merged.cases))], ["Spacing (D x H x W)", spans_text(merged.spacing_mm)]]
    rows.append(["Field of view", spans_text(merged.extent_mm)])
    for channel, (low, high) in zip(recipe.channels, merged.intensity, strict=True):
        rows.append([f"{channel.name}: 0.5th to 99.5th percentile", f"{low:.4g} to {high:.4g}"])
    for name, (low, high) in (merged.volumes_ml or {}).items():
        rows.append([f"{name}: volume", f"{low:.3g} to {high:.3g} ml"])
    page.heading("Training cases")
    page.table(("", ""), rows)


def _scores(page: Page, recipe: Recipe, scores: Mapping[int, FoldScores]) -> None:
    page.heading("Scores on held-out cases")
    page.paragraph(
        f"Folds {', '.join(map(str, scores))}; each case was predicted by a model that didn't train on it. The interval"
        " is that of the mean, 95 %, by bootstrap over cases."
    )
    spread = ("n", "Mean", "95 % CI", "SD", "Median", "Min", "Max")
    rows = [[name, *map(number, folds), *_spread(found)] for name, folds, found in dice_rows(scores)]
    page.table(("Dice", *(f"Fold {fold}" for fold in scores), *spread), rows)
    others = {key: name for key, name in METRICS.items() if key != "dice"}
    rows = [
        [f"{summary.name}, {name}", *_spread(summary.metrics[key])]
        for summary in summaries(scores)
        for key, name in others.items()
    ]
    page.table(("Label and metric", *spread), rows, folded=", ".join(others.values()))
    _, told = choose_postprocessing(recipe, scores)
    page.paragraph(
        "Post-processing that these cases speak for: " + ("; ".join(told) or "none beside the recipe's") + "."
    )


def _spread(found: Statistics) -> list[str]:
    interval = "-" if found.ci_low is None else f"{number(found.ci_low)} to {number(found.ci_high)}"
    mean, *others = map(number, (found.mean, found.std, found.median, found.minimum, found.maximum))
    return [str(found.n), mean, interval, *others]


def _worst_cases(page: Page, run: Path, scores: Mapping[int, FoldScores]) -> None:
    page.heading("Worst cases")
    ranked = [
        (case, fold, rank) for fold, found in scores.items() for rank, case in enumerate(worst(found.cases), start=1)
    ]
    for case, fold, rank in sorted(ranked, key=lambda item: item[0].dice or 0.0)[:WORST]:
        path = run / f"fold_{fold}" / f"worst_{rank}.png"
        labels = ", ".join(f"{score.name} {number(score.dice)}" for score in case.labels)
        if path.exists():
            page.picture(path.read_bytes(), f"{case.case}, held out by fold {fold}; Dice: {labels}")


def _usage(page: Page, folds: Sequence[Path]) -> None:
    page.heading("Time and energy")
    used = {folder.name: read_usage(folder) for folder in folds if (folder / USAGE).exists()}
    if len(used) > 1:
        joules = [each.energy_joules for each in used.values()]
        used["all"] = Usage(
            wall_seconds=sum(each.wall_seconds for each in used.values()),
            cpu_seconds=sum(each.cpu_seconds for each in used.values()),
            energy_joules=None if None in joules else sum(each or 0.0 for each in joules),
        )
    rows = [[name, _time(each.wall_seconds), _time(each.cpu_seconds), _energy(each)] for name, each in used.items()]
    page.table(("Fold", "Wall time", "Processor time", "Energy of the processors"), rows)
    if any(each.energy_joules is None for each in used.values()):
        page.paragraph("This machine doesn't let its energy counters be read (Linux's RAPL needs root).")


def _time(seconds: float) -> str:
    """In the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _energy(used: Usage) -> str:
    return "not known" if used.energy_joules is None else f"{used.energy_joules / 3.6e6:.3f} kWh"
