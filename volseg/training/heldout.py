"""How a fold's model does on the cases that it held out, and all folds together: the cross-validation.

::

    RUN/fold_K/scores.json             scores of each held-out case and label
    RUN/fold_K/validation/<case>.nii.gz  the masks; worst_<n>.png shows the worst of them
    RUN/cross_validation.csv, .json    all folds in one table, and its statistics
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from volseg.config import PostprocessRule, Recipe, Section, validation_problem
from volseg.errors import ModelError
from volseg.evaluation.overlap import dice_per_label
from volseg.evaluation.scores import LabelScore, evaluate_pair
from volseg.evaluation.statistics import Statistics, Summary, statistics, summarise
from volseg.export.save import save
from volseg.files import write_atomically
from volseg.inference import stream
from volseg.inference.engines.torch import TorchEngine
from volseg.postprocess.rules import apply_rules
from volseg.training.dataset import TrainingCase
from volseg.training.processes import ALONE, Processes
from volseg.volume import LabelVolume

SCORES, MASKS = "scores.json", "validation"
TABLE, SUMMARY = "cross_validation.csv", "cross_validation.json"


class CaseScores(Section):
    """One held-out case."""

    case: str
    """Its name."""
    labels: tuple[LabelScore, ...]
    """Scores of every label of the recipe, post-processed as the recipe says."""
    largest_component: tuple[float | None, ...]
    """Dice of each label if its largest component were kept alone."""

    @property
    def dice(self) -> float | None:
        """Mean Dice of the labels that are in a mask."""
        known = [score.dice for score in self.labels if score.dice is not None]
        return sum(known) / len(known) if known else None


class FoldScores(Section):
    """``scores.json``."""

    step: int
    """Step of the weights that were scored."""
    cases: tuple[CaseScores, ...]
    """Scores of the cases, by name."""


def predict_case(case: TrainingCase, recipe: Recipe, engine: TorchEngine) -> LabelVolume:
    """Mask of a training case on its own grid, post-processed, as the packed model would give it."""
    mirrored = recipe.mirroring.axes if recipe.mirroring.use else ()
    found = stream(case.prepared, [engine], recipe, case.reference.source, mirrored=mirrored)
    return apply_rules(found.mask, recipe.postprocess)


def judged(mask: LabelVolume, case: TrainingCase) -> LabelVolume:
    """`mask`, with background where the case's labels say that nobody judged."""
    if case.ignored is None:
        return mask
    return mask.with_array(np.where(case.ignored, mask.array.dtype.type(0), mask.array))


def score_cases(
    recipe: Recipe,
    cases: Sequence[TrainingCase],
    engine: TorchEngine,
    folder: Path,
    step: int,
    processes: Processes = ALONE,
) -> tuple[FoldScores, dict[str, LabelVolume]]:
    """Predict and score held-out cases, and keep masks and scores in the fold's folder.

    Parameters
    ----------
    recipe
        Recipe of the run.
    cases
        Cases that the fold holds out.
    engine
        The network with the weights that a model is packed of.
    folder
        Folder of the fold.
    step
        Step of the weights.
    processes
        Processes, each of which predicts and scores its share of the cases.

    Returns
    -------
    tuple
        The scores of all, and the masks of this process's share by the name of the case.
    """
    values = [label.value for label in recipe.label_table()]
    alone = with_largest_component(recipe, values)
    own, masks = [], {}
    with processes.together():
        (folder / MASKS).mkdir(parents=True, exist_ok=True)
        for case in processes.share(sorted(cases, key=lambda case: case.name)):
            mask = predict_case(case, recipe, engine)
            masks[case.name] = mask
            save(mask, folder / MASKS / f"{case.name}.nii.gz")
            mask = judged(mask, case)
            scores = evaluate_pair(mask, case.reference, left_out=case.ignored)
            largest = dice_per_label(judged(apply_rules(mask, alone), case).array, case.reference.array, values)
            own.append(CaseScores(case=case.name, labels=tuple(scores), largest_component=tuple(largest)))
    result = FoldScores(step=step, cases=tuple(processes.joined(own)))
    with processes.together():
        if processes.main:
            write_atomically(folder / SCORES, (result.model_dump_json(indent=1) + "\n").encode())
    return result, masks


def with_largest_component(recipe: Recipe, values: Sequence[int]) -> tuple[PostprocessRule, ...]:
    """The recipe's rules, and for each of `values` that its largest component is kept alone."""
    rules = [
        rule.model_copy(update={"largest_component": True}) if rule.label in values else rule
        for rule in recipe.postprocess
    ]
    known = {rule.label for rule in rules}
    return (*rules, *(PostprocessRule(label=value, largest_component=True) for value in values if value not in known))


def read_scores(run: Path) -> dict[int, FoldScores]:
    """Scores of the folds of a run that have some, by number.

    Raises
    ------
    ModelError
        A damaged file.
    """
    scores = {}
    for path in run.glob(f"fold_*/{SCORES}"):
        try:
            scores[int(path.parent.name.removeprefix("fold_"))] = FoldScores.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelError(f"{path}: {validation_problem(error)}") from error
    return dict(sorted(scores.items()))


def choose_postprocessing(
    recipe: Recipe, scores: Mapping[int, FoldScores]
) -> tuple[tuple[PostprocessRule, ...], list[str]]:
    """Rules for a model, chosen on held-out cases as nnU-Net does, and what was chosen, a sentence a label.

    A label's largest component is kept alone where that raises its mean Dice over the held-out cases. It can't lower
    that of another label: removed voxels become background, and no other label's voxel is touched.
    """
    cases = [case for fold in scores.values() for case in fold.cases]
    given = {rule.label for rule in recipe.postprocess if rule.largest_component}
    chosen, told = [], []
    for index, label in enumerate(recipe.label_table()):
        if not cases or label.value in given:
            continue
        before = statistics([case.labels[index].dice for case in cases]).mean
        after = statistics([case.largest_component[index] for case in cases]).mean
        if before is not None and after is not None and after > before:
            chosen.append(label.value)
            told.append(
                f"{label.name}: the largest component alone is kept: mean Dice over {len(cases)} held-out cases"
                f" {before:.4f} without, {after:.4f} with it"
            )
    return (with_largest_component(recipe, chosen) if chosen else recipe.postprocess), told


def summaries(scores: Mapping[int, FoldScores]) -> list[Summary]:
    """Statistics over all held-out cases, label by label, then of the mean of labels."""
    return summarise([case.labels for fold in scores.values() for case in fold.cases])


def write_cross_validation(run: Path) -> dict[int, FoldScores]:
    """Write the table of all folds that were scored so far; returns their scores."""
    scores = read_scores(run)
    if not scores:
        return scores
    columns = [field.name for field in fields(LabelScore)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "case", *columns, "dice_of_largest_component"])
    for fold, found in scores.items():
        for case in found.cases:
            for score, largest in zip(case.labels, case.largest_component, strict=True):
                writer.writerow([fold, case.case, *(getattr(score, column) for column in columns), largest])
    write_atomically(run / TABLE, text.getvalue().encode())
    content = {"folds": list(scores), "summary": [asdict(summary) for summary in summaries(scores)]}
    write_atomically(run / SUMMARY, (json.dumps(content, indent=1) + "\n").encode())
    return scores


def dice_rows(scores: Mapping[int, FoldScores]) -> list[tuple[str, list[float | None], Statistics]]:
    """For each label, then their mean: its name, mean Dice of each fold, and statistics over all cases."""
    by_fold = [summaries({fold: found}) for fold, found in scores.items()]
    return [
        (summary.name, [each[number].metrics["dice"].mean for each in by_fold], summary.metrics["dice"])
        for number, summary in enumerate(summaries(scores))
    ]


def number(value: float | None) -> str:
    """Four digits, or a hyphen."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.4f}"
