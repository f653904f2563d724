"""Starting from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import volseg
from tests.conftest import ROOT
from tests.helpers.tiny import blob_case, model_of, tiny_recipe, write_dataset
from volseg.config import Recipe, recipe_from_dict
from volseg.datasets.cases import Case, load_dataset
from volseg.errors import ModelError, UsageError
from volseg.models.folder import ModelFolder
from volseg.models.nnunet import import_nnunet
from volseg.network.unet import UNet
from volseg.training import loop
from volseg.training.checkpoint import load_checkpoint
from volseg.training.finetune import Start
from volseg.training.pack import pack_run
from volseg.training.run import Budget, train_fold

TRAINING = {"batch_size": 1, "validations": 1, "folds": 2, "ema_decay": 0.9}
FEW: dict[str, Any] = {"window": [8, 8, 8], "network": {"features": [2, 4, 4]}, "training": TRAINING}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    return load_dataset(write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)}))


def model(folder: Path, folds: tuple[str, ...] = ("all",), **changes: Any) -> Start:
    recipe = tiny_recipe(**{**FEW, **changes})
    states = {}
    for seed, fold in enumerate(folds):
        torch.manual_seed(100 + seed)
        states[fold] = UNet.from_recipe(recipe).state_dict()
    return Start(model_of(folder, recipe, states))


def train(recipe: Any, cases: tuple[Case, ...], run: Path, start: Start | None, **more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"resume": False, "report": lambda *_: None, **more}
    train_fold(recipe, cases, run, options.pop("fold", None), Budget(steps=1), start=start, **options)
    return load_checkpoint(next(run.glob("fold_*/last.pt")))


def test_layers_that_fit_are_taken_and_the_others_are_named(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    start = model(tmp_path / "model")
    one = [{"value": 1, "name": "all of it", "colour": [1, 2, 3], "members": [1, 2]}]
    told: list[str] = []
    slow = {**TRAINING, "learning_rate": 1e-30}
    recipe = tiny_recipe(**{**FEW, "labels": one, "output": "sigmoid", "training": slow})
    state = train(recipe, cases, tmp_path / "run", start, note=told.append)
    weights = start.model.weights("all")
    new = {name for name, value in weights.items() if state["network"][name].shape != value.shape}
    assert new == {"outputs.0.weight", "outputs.0.bias"}
    for name in weights.keys() - new:
        torch.testing.assert_close(state["average"][name], weights[name])
    assert (
        f"{len(weights) - 2} of {len(weights)} tensors are those of tiny 1.0, fold all;"
        " new: outputs.0.bias, outputs.0.weight" in told
    )


def test_frozen_stages_stay_and_the_others_move(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    start = model(tmp_path / "model", network={"features": [2, 4, 4], "normalisation": "batch"})
    frozen = Start(start.model, freeze=2)
    recipe = tiny_recipe(**{**FEW, "network": {"features": [2, 4, 4], "normalisation": "batch"}})
    for part in (
        train(recipe, cases, tmp_path / "run", frozen),
        train(recipe, cases, tmp_path / "run", frozen, resume=True),
    ):
        same = {name for name, value in start.model.weights("all").items() if torch.equal(part["network"][name], value)}
        weights = {n for n in same if not n.endswith("num_batches_tracked")}
        assert weights == {
            name for name in start.model.weights("all")
            if name.startswith(("encoder.0", "encoder.1")) and not name.endswith("num_batches_tracked")
        }  # fmt: skip


def test_a_fold_starts_from_its_own_and_cases_that_were_seen_are_told(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    start = model(tmp_path / "model", ("0", "1"), spacing_mm=[2, 2, 2])
    told: list[str] = []
    train(tiny_recipe(**FEW), cases, tmp_path / "run", start, fold=1, note=told.append)
    assert any("fold 1; new: none" in text for text in told)
    # The model's two training cases are called case_1 and case_2.
    seen = any("1 of the held-out cases have names of cases that tiny was trained on (case_1" in text for text in told)
    assert seen == (tmp_path / "run" / "fold_1" / "validation" / "case_1.nii.gz").exists()
    assert any("spacing_mm isn't that of tiny: its weights expect (2.0, 2.0, 2.0)" in text for text in told)


def test_a_run_stays_with_what_it_started_from(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    start = model(tmp_path / "model")
    train(tiny_recipe(**FEW), cases, tmp_path / "run", start)
    for other in (None, Start(start.model, freeze=1)):
        with pytest.raises(UsageError, match=r"starts from model tiny 1\.0 .*0 frozen\); give the same --from"):
            train(tiny_recipe(**FEW), cases, tmp_path / "run", other, resume=True)
    train(tiny_recipe(**FEW), cases, tmp_path / "plain", None)
    with pytest.raises(UsageError, match="starts from random weights"):
        train(tiny_recipe(**FEW), cases, tmp_path / "plain", start, resume=True)


def test_a_model_of_which_nothing_fits(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    start = model(tmp_path / "model", network={"features": [3, 5, 6]})
    with pytest.raises(UsageError, match="none of its layers has the shape of one of the recipe's network"):
        train(
            tiny_recipe(**{**FEW, "network": {"features": [2, 4, 7], "normalisation": "none", "bias": False}}),
            cases,
            tmp_path / "run",
            start,
        )
    with pytest.raises(UsageError, match="--freeze 4: the network's encoder has 3 stages"):
        train(tiny_recipe(**FEW), cases, tmp_path / "other", Start(model(tmp_path / "fits").model, freeze=4))


def test_weights_of_folds_that_fine_tuned_one_model_are_averaged(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    start = model(tmp_path / "model")
    run, recipe = tmp_path / "run", tiny_recipe(**FEW)
    train(recipe, cases, run, start, fold=0)
    train(recipe, cases, run, start, fold=1)
    mean = pack_run(run, tmp_path / "mean", average=True)
    assert list(mean.manifest.weights) == ["average"]
    parts = [load_checkpoint(run / f"fold_{n}" / "best.pt")["average"] for n in (0, 1)]
    for name, value in mean.weights("average").items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
    assert "ITS ACCURACY ISN'T MEASURED" in (tmp_path / "mean" / "CARD.md").read_text()


@pytest.mark.parametrize("folds", [(), ("0", "1")])
def test_weights_of_folds_that_were_trained_apart_are_not(
    folds: tuple[str, ...], tmp_path: Path, cases: tuple[Case, ...]
) -> None:
    start = model(tmp_path / "model", folds) if folds else None
    told = "different folds of tiny 1.0" if folds else "random weights"
    for fold in (0, 1):
        train(tiny_recipe(**FEW), cases, tmp_path / "run", start, fold=fold)
    with pytest.raises(ModelError, match=rf"its folds started from {told}, .*train --from.*an ensemble"):
        pack_run(tmp_path / "run", tmp_path / "mean", average=True)
    assert not (tmp_path / "mean").exists()


def like(imported: ModelFolder, **changes: Any) -> Recipe:
    """The imported model's own recipe, which model.json holds, made trainable on small cases."""
    content = imported.manifest.recipe.model_dump(mode="json")
    content["training"] |= TRAINING
    return recipe_from_dict({**content, **changes}, "recipe")


def imported(kind: str, folder: Path) -> ModelFolder:
    return import_nnunet(ROOT / "tests" / "data" / "nnunet" / kind, folder)


ONE = [{"value": 1, "name": "all of it", "colour": [1, 2, 3], "members": [1, 2]}]
TWO = [{"value": 1, "name": "a", "colour": [1, 2, 3]}, {"value": 2, "name": "b", "colour": [3, 2, 1]}]
MRI = [{"name": "MRI", "modalities": ["MR"]}]


def test_an_imported_nnunet_model_learns_other_labels(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    model = imported("plain", tmp_path / "model")  # CT; liver and spleen
    told: list[str] = []
    recipe = like(model, labels=ONE, output="sigmoid")
    state = train(recipe, cases, tmp_path / "run", Start(model, freeze=1), note=told.append)
    weights = model.weights("0")
    new = {name for name, value in weights.items() if state["network"][name].shape != value.shape}
    assert new
    assert all(name.startswith("outputs.") for name in new)
    assert f"{len(weights) - len(new)} of {len(weights)} tensors are those of {recipe.name} " in "".join(told)
    same = {name for name in weights.keys() - new if torch.equal(state["network"][name], weights[name])}
    assert same == {name for name in weights if name.startswith("encoder.0.")}


def test_an_imported_nnunet_model_takes_other_channels(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    model = imported("residual", tmp_path / "model")  # T1 and FLAIR; a lesion
    recipe = like(model, channels=MRI, labels=TWO)
    told: list[str] = []
    state = train(recipe, cases, tmp_path / "run", Start(model), note=told.append)
    (weights,) = (model.weights(fold) for fold in model.manifest.weights)
    new = {name.partition(".")[0] for name, value in weights.items() if state["network"][name].shape != value.shape}
    assert new == {"stem", "outputs"}
    assert any("tensors are those of" in text and "stem." in text for text in told)
    # A stage that is new can't be frozen: it would stay random.
    with pytest.raises(
        UsageError, match=r"--freeze 1: stem\..* have other shapes than the model's, and would stay rand"
    ):
        train(recipe, cases, tmp_path / "frozen", Start(model, freeze=1))


def test_the_packed_model_of_a_fine_tuned_nnunet_predicts(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    model = imported("plain", tmp_path / "model")
    train(like(model), cases, tmp_path / "run", Start(model))
    packed = pack_run(tmp_path / "run", tmp_path / "packed")
    assert "fine-tuned: it started from" in (tmp_path / "packed" / "CARD.md").read_text()
    mask = volseg.load_model(packed.path).predict(volseg.load(cases[0].images[0]))
    assert mask.array.shape == (20, 18, 16)
    assert packed.manifest.trained_on.cases == ("case_0", "case_1")
