"""Scores of held-out cases, their table, and the post-processing that they speak for."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.datasets.cases import load_dataset
from volseg.errors import ModelError, UsageError
from volseg.evaluation.scores import LabelScore
from volseg.inference.engines.torch import TorchEngine
from volseg.network.unet import UNet
from volseg.training import loop
from volseg.training.dataset import prepare_case
from volseg.training.heldout import (
    CaseScores,
    FoldScores,
    choose_postprocessing,
    dice_rows,
    predict_case,
    read_scores,
    with_largest_component,
)
from volseg.training.pack import pack_run
from volseg.training.run import Budget, train_fold

TRAINING = {"batch_size": 1, "validations": 1, "folds": 2, "ema_decay": 0.9}
RECIPE = tiny_recipe(window=[8, 8, 8], training=TRAINING)


def score(value: int, dice: float | None) -> LabelScore:
    state: Any = "both empty" if dice is None else "scored"
    return LabelScore(
        value=value, name=f"label {value}", state=state, dice=dice, iou=dice, accuracy=1.0, hd95_mm=dice, nsd=dice,
        predicted_ml=1.0, reference_ml=1.0,
    )  # fmt: skip


def fold(*cases: tuple[str, tuple[float | None, float | None], tuple[float | None, float | None]]) -> FoldScores:
    return FoldScores(
        step=1,
        cases=tuple(
            CaseScores(case=name, labels=(score(1, dice[0]), score(2, dice[1])), largest_component=largest)
            for name, dice, largest in cases
        ),
    )


def test_a_largest_component_is_kept_only_where_the_mean_over_all_folds_rises() -> None:
    scores = {
        0: fold(("a", (0.5, 0.8), (0.9, 0.7)), ("b", (0.6, None), (0.5, None))),
        1: fold(("c", (0.7, 0.8), (0.7, 0.8))),
    }
    rules, told = choose_postprocessing(RECIPE, scores)
    # Label 1: (0.5 + 0.6 + 0.7) / 3 = 0.6 becomes (0.9 + 0.5 + 0.7) / 3 = 0.7. Label 2: 0.8 becomes 0.75.
    assert [(rule.label, rule.largest_component) for rule in rules] == [(1, True)]
    assert told == [
        "Anterior hippocampus: the largest component alone is kept: mean Dice over 3 held-out cases 0.6000 without,"
        " 0.7000 with it"
    ]
    same = {0: fold(("a", (0.5, 0.5), (0.5, 0.5)))}
    assert choose_postprocessing(RECIPE, same) == ((), [])
    assert choose_postprocessing(RECIPE, {}) == ((), [])


def test_a_rule_that_is_there_keeps_its_other_parts() -> None:
    recipe = tiny_recipe(postprocess=[{"label": 2, "min_volume_ml": 0.5}])
    rules = with_largest_component(recipe, [1, 2])
    assert [(rule.label, rule.largest_component, rule.min_volume_ml) for rule in rules] == [
        (2, True, 0.5),
        (1, True, 0),
    ]


def test_the_table_by_hand() -> None:
    scores = {0: fold(("a", (0.5, 0.8), (0, 0)), ("b", (0.7, None), (0, 0))), 1: fold(("c", (0.9, 0.6), (0, 0)))}
    rows = dice_rows(scores)
    assert [name for name, _, _ in rows] == ["label 1", "label 2", "mean of labels"]
    assert rows[0][1] == pytest.approx([0.6, 0.9])
    assert rows[1][1] == pytest.approx([0.8, 0.6])
    assert rows[2][1] == pytest.approx([(0.65 + 0.7) / 2, 0.75])
    assert [rows[0][2].mean, rows[0][2].std] == pytest.approx([0.7, 0.2])
    assert rows[1][2].mean == pytest.approx(0.7)
    assert [row[2].n for row in rows] == [3, 2, 3]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both folds of a run on three cases, two of which are of one patient."""
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)
    write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(3)})
    lines = [f"imagesTr/case_{n}.nii.gz,labelsTr/case_{n}.nii.gz,p{n // 2}" for n in range(3)]
    (tmp_path / "data" / "table.csv").write_text("\n".join(["image,label,patient", *lines]))
    cases = load_dataset(tmp_path / "data" / "table.csv")
    for number in (0, 1):
        train_fold(RECIPE, cases, tmp_path / "run", number, Budget(steps=1), resume=False, report=lambda *_: None)
    return tmp_path / "run"


def test_a_run_of_all_folds(tmp_path: Path, run: Path) -> None:
    splits = json.loads((run / "splits.json").read_text())
    assert sorted(map(sorted, splits["folds"])) == [["case_0", "case_1"], ["case_2"]]
    scores = read_scores(run)
    assert [[case.case for case in scores[n].cases] for n in (0, 1)] == splits["folds"]
    rows = list(csv.DictReader((run / "cross_validation.csv").read_text().splitlines()))
    assert sorted((row["case"], row["value"]) for row in rows) == [(f"case_{n}", v) for n in range(3) for v in "12"]
    for row in rows:  # against the masks that lie there
        mask = np.asarray(nibabel.load(run / f"fold_{row['fold']}" / "validation" / f"{row['case']}.nii.gz").dataobj)
        truth = np.asarray(nibabel.load(tmp_path / "data" / "labelsTr" / f"{row['case']}.nii.gz").dataobj)
        ours, theirs = mask == int(row["value"]), truth == int(row["value"])
        assert float(row["dice"]) == pytest.approx(2 * np.sum(ours & theirs) / (ours.sum() + theirs.sum()))
    summary = json.loads((run / "cross_validation.json").read_text())
    assert summary["folds"] == [0, 1]
    assert summary["summary"][0]["metrics"]["dice"]["n"] == 3
    _pack(tmp_path, run, summary)
    _report(run)
    _stays(tmp_path, run)


def test_masks_are_mirrored_where_the_recipe_says_so(tmp_path: Path) -> None:
    # As the packed model's are: a table without the mirrored pass would be another model's.
    recipe = tiny_recipe(mirroring={"use": True})
    write_dataset(tmp_path, {"case": blob_case(0, (16, 16, 16))})
    case = prepare_case(load_dataset(tmp_path)[0], recipe)
    torch.manual_seed(1)
    network = UNet.from_recipe(recipe).eval()
    x = case.prepared.tensor_CDHW[None]
    with torch.no_grad():
        both = network(x) + network(x.flip(2)).flip(2)
    found = predict_case(case, recipe, TorchEngine(network)).array
    assert np.array_equal(found, both.argmax(1)[0].numpy())
    assert not np.array_equal(found, network(x).argmax(1)[0].numpy())


def _pack(tmp_path: Path, run: Path, summary: dict[str, Any]) -> None:
    ensemble = pack_run(run, tmp_path / "ensemble")
    assert list(ensemble.manifest.weights) == ["0", "1"]
    metrics = json.loads((tmp_path / "ensemble" / "metrics.json").read_text())
    assert metrics["cross_validation"] == summary["summary"]
    card = (tmp_path / "ensemble" / "CARD.md").read_text()
    assert "over the 3 cases that the folds held out" in card
    assert "of the ensemble of all folds nothing is measured" in card
    assert all(text in card for text in metrics["postprocessing"])
    chosen, _ = choose_postprocessing(RECIPE, read_scores(run))
    assert ensemble.manifest.recipe.postprocess == chosen
    one = pack_run(run, tmp_path / "one", "1")
    assert list(one.manifest.weights) == ["1"]
    assert set(one.manifest.trained_on.cases).isdisjoint(case.case for case in read_scores(run)[1].cases)
    with pytest.raises(ModelError, match="--average needs two folds or more, and there is 1"):
        pack_run(run, tmp_path / "no", "1", average=True)
    with pytest.raises(ModelError, match=r"holds no finished training \(fold_7\)"):
        pack_run(run, tmp_path / "no", "7")


def _report(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "<th>Dice</th><th>Fold 0</th><th>Fold 1</th><th>n</th>" in page
    assert all(f"mean of labels, {name}" in page for name in ("IoU", "Accuracy", "HD95", "NSD"))
    assert "<td>all</td>" in page
    assert page.count("data:image/png;base64,") == 3  # the worst cases; curves aren't drawn here
    assert "://" not in page  # pictures in base64 may hold "http" by chance, but no colon
    assert 'src="data:' in page
    assert "Processor time" in page
    usage = json.loads((run / "fold_0" / "usage.json").read_text())
    assert 0 < usage["cpu_seconds"] < 600


def _stays(tmp_path: Path, run: Path) -> None:
    """A finished fold isn't run again, and other patients are other folds."""
    cases = load_dataset(tmp_path / "data" / "table.csv")
    for path in (tmp_path / "data" / "imagesTr").iterdir():
        path.write_bytes(b"not read any more")
    again = train_fold(RECIPE, cases, run, 0, Budget(steps=9), resume=True, report=lambda *_: None)
    assert again.step == 1
    with pytest.raises(
        UsageError, match=r"splits\.json: the folds of this run are of other cases: the dataset lacks 1"
    ):
        train_fold(RECIPE, cases[1:], run, 0, Budget(steps=9), resume=True, report=lambda *_: None)
