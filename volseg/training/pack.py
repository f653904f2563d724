"""A model folder of a finished run: one fold, the ensemble of its folds, or the average of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from volseg.config import Recipe, recipe_from_dict
from volseg.errors import ModelError, TrainingError
from volseg.evaluation.statistics import Statistics, statistics
from volseg.models.folder import ModelFolder, TrainedOn, spans_text, write_model
from volseg.training.checkpoint import BEST, LAST, load_checkpoint
from volseg.training.finetune import StartRecord, read_start
from volseg.training.heldout import FoldScores, choose_postprocessing, read_scores, summaries
from volseg.training.run import RECIPE
from volseg.training.trained_on import TRAINED_ON, merge, read_json, read_trained_on

#: Name of the weights that are an average of folds.
AVERAGE = "average"


def _finished(run: Path, fold: str | None) -> list[Path]:
    """Folders of the run's folds, or of one of them; each must be finished."""
    folders = sorted(run.glob("fold_*"))
    if fold is not None:
        folders = [path for path in folders if path.name == f"fold_{fold}"]
    if not folders:
        raise ModelError(f"{run}: holds no finished training (fold_{fold or 'all, fold_0, ...'})")
    for path in folders:
        if not (path / TRAINED_ON).exists():
            raise ModelError(f"{path}: is unfinished; go on with volseg train --resume, or remove it")
    return folders


def _average(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor; whole numbers (batch counters) are those of the first."""
    first, *_ = states.values()
    return {
        name: torch.stack([state[name].double() for state in states.values()]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def pack_run(run: Path, folder: Path, fold: str | None = None, *, average: bool = False) -> ModelFolder:
    """Make a model folder of a finished run.

    The weights are those of the best validation where a fold was held out, the last ones otherwise. The recipe gets
    the post-processing that the held-out cases of all finished folds speak for.

    Parameters
    ----------
    run
        Folder of the run.
    folder
        Model folder to write, which must not exist.
    fold
        Name of the only fold to pack; every fold becomes a member of the ensemble unless given.
    average
        Whether to average the weights of the folds instead: one network, as fast as one fold. They must have started
        from the same weights of one model.

    Raises
    ------
    ModelError
        No run there, one with an unfinished fold, or folds that can't be averaged.
    """
    recipe = recipe_from_dict(read_json(run / RECIPE), str(run / RECIPE))
    folders = _finished(run, fold)
    states: dict[str, dict[str, Tensor]] = {}
    validation: dict[str, dict[str, float]] = {}
    for path in folders:
        try:
            state = load_checkpoint(path / (BEST if (path / BEST).exists() else LAST))
        except TrainingError as error:
            raise ModelError(str(error)) from error
        name = path.name.removeprefix("fold_")
        states[name] = state["average"]
        rows = [row for row in state["progress"]["history"] if row["dice"] is not None]
        validation[name] = {key: value for key, value in rows[-1].items() if key.startswith("dice")} if rows else {}
    start = read_start(run)
    if average:
        _check_average(run, list(states), start)
        states = {AVERAGE: _average(states)}
    scores = read_scores(run)
    rules, told = choose_postprocessing(recipe, scores)
    recipe = recipe.model_copy(update={"postprocess": rules})
    merged = merge([read_trained_on(path / TRAINED_ON) for path in folders])
    metrics = {
        "validation": validation,
        "cross_validation": [asdict(summary) for summary in summaries(scores)] if scores else [],
        "postprocessing": told,
    }
    notes = [f"fine-tuned: it started from {start.model} (sha256 {start.sha256})"] if start else []
    notes += _accuracy(list(validation), scores, average=average) + told
    card = _card(recipe, merged, notes, _table(recipe, validation, scores, chosen=bool(told)))
    return write_model(folder, recipe, merged, states, card=card, metrics=metrics)


def _check_average(run: Path, folds: Sequence[str], start: StartRecord | None) -> None:
    """Refuse an average of networks that were trained apart.

    Networks that start from random weights end in different places, between which the loss is high (Frankle et al.,
    arXiv:1912.05671); those that fine-tune one model mostly stay in one valley (Wortsman et al., arXiv:2203.05482).
    """
    if len(folds) < 2:
        raise ModelError(f"{run}: --average needs two folds or more, and there is {', '.join(folds)}")
    apart = "random weights" if start is None else f"different folds of {start.model}"
    if start is None or len({start.weights_of(fold) for fold in folds}) > 1:
        raise ModelError(
            f"{run}: its folds started from {apart}, and the mean of networks that were trained apart segments badly;"
            " --average is for folds that fine-tuned one model (train --from). Without it all folds are packed as an"
            " ensemble, with --fold one of them"
        )


def _accuracy(folds: Sequence[str], scores: Mapping[int, FoldScores], *, average: bool) -> list[str]:
    """What the numbers of the card are of, and what isn't measured."""
    held_out = sum(len(fold.cases) for fold in scores.values())
    if average:
        return [
            f"the weights are the mean of those of the folds {', '.join(folds)}. ITS ACCURACY ISN'T MEASURED:"
            " no case is unseen by all of them. Measure it on other cases (volseg predict, volseg evaluate)."
            " The numbers below are of the folds"
        ]
    told = [f"Dice is over the {held_out} cases that the folds held out, each predicted by the fold that didn't see it"]
    if len(folds) > 1:
        told.append("of the ensemble of all folds nothing is measured: no case is unseen by all of them")
    return told if scores else []


def _table(
    recipe: Recipe, validation: dict[str, dict[str, float]], scores: Mapping[int, FoldScores], *, chosen: bool
) -> list[str]:
    """Dice by fold, and over all held-out cases."""
    labels = recipe.label_table()
    lines = ["| fold | " + " | ".join(label.name for label in labels) + " |", "|---|" + "---|" * len(labels)]
    for fold, found in validation.items():
        cells = [found.get(f"dice {label.name}") for label in labels]
        shown = ["not validated" if cell is None else f"Dice {cell:.4f}" for cell in cells]
        lines.append(f"| {fold} | " + " | ".join(shown) + " |")
    cases = [case for fold in scores.values() for case in fold.cases]
    kept = {rule.label for rule in recipe.postprocess if rule.largest_component}
    rows = [("all held-out cases", [[case.labels[n].dice for case in cases] for n in range(len(labels))])]
    if chosen:
        after = [
            [case.largest_component[n] if label.value in kept else case.labels[n].dice for case in cases]
            for n, label in enumerate(labels)
        ]
        rows.append(("the same, with the post-processing that was chosen on them", after))
    for name, columns in rows if cases else []:
        lines.append(f"| {name} | " + " | ".join(_mean(statistics(column)) for column in columns) + " |")
    return lines


def _mean(found: Statistics) -> str:
    if found.mean is None:
        return "not in a mask"
    spread = "" if found.ci_low is None else f" (95 % CI {found.ci_low:.4f} to {found.ci_high:.4f})"
    return f"Dice {found.mean:.4f}{spread}"


def _card(recipe: Recipe, trained_on: TrainedOn, notes: Sequence[str], table: Sequence[str]) -> str:
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
        *(f"- {note}" for note in notes),
        "",
        *table,
    ]
    return "\n".join(lines) + "\n"
