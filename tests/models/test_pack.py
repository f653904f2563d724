"""From a run to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.datasets.cases import load_dataset
from volseg.errors import ModelError
from volseg.training import loop
from volseg.training.checkpoint import Progress, load_checkpoint
from volseg.training.pack import pack_run
from volseg.training.run import Budget, train_fold

RECIPE = tiny_recipe(
    window=[8, 8, 8], training={"batch_size": 1, "validations": 2, "folds": 2, "ema_decay": 0.9, "steps": 2}
)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)


def silent(progress: Progress, row: dict[str, Any]) -> None:
    pass


def train(folder: Path, fold: int | None) -> Path:
    run = folder / "run"
    data = folder / "data"
    if not data.exists():
        write_dataset(data, {f"case_{n}": blob_case(n, shape=(18 + n, 18, 16)) for n in range(3)})
    train_fold(RECIPE, load_dataset(data), run, fold, Budget(), resume=False, report=silent)
    return run


def test_a_run_on_all_cases_keeps_the_last_averaged_weights(tmp_path: Path) -> None:
    run = train(tmp_path, None)
    packed = pack_run(run, tmp_path / "model")
    assert list(packed.manifest.weights) == ["all"]
    state = load_checkpoint(run / "fold_all" / "last.pt")
    weights = packed.weights("all")
    assert all(torch.equal(weights[name], value) for name, value in state["average"].items())
    assert not all(torch.equal(weights[name], value) for name, value in state["network"].items())
    assert packed.manifest.recipe == RECIPE
    assert packed.manifest.trained_on.cases == ("case_0", "case_1", "case_2")
    assert packed.manifest.trained_on.extent_mm == ((18, 20), (18, 18), (16, 16))
    card = (tmp_path / "model" / "CARD.md").read_text()
    assert "3 cases" in card
    assert "not validated" in card


def test_folds_become_an_ensemble_of_their_best_weights(tmp_path: Path) -> None:
    train(tmp_path, 0)
    run = train(tmp_path, 1)
    packed = pack_run(run, tmp_path / "model")
    assert list(packed.manifest.weights) == ["0", "1"]
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())["validation"]
    for fold in ("0", "1"):
        best = load_checkpoint(run / f"fold_{fold}" / "best.pt")
        assert all(torch.equal(packed.weights(fold)[name], value) for name, value in best["average"].items())
        assert metrics[fold]["dice"] == best["progress"]["best"]
    # Each fold trained on its part: together they are all.
    assert packed.manifest.trained_on.cases == ("case_0", "case_1", "case_2")
    assert packed.manifest.trained_on.extent_mm == ((18, 20), (18, 18), (16, 16))


def test_an_unfinished_fold_is_refused_by_name(tmp_path: Path) -> None:
    run = train(tmp_path, 0)
    (run / "fold_1").mkdir()
    with pytest.raises(ModelError, match=r"fold_1: is unfinished; go on with volseg train --resume"):
        pack_run(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"recipe\.json: can't be read; is its folder a finished run"):
        pack_run(tmp_path, tmp_path / "model")
    (tmp_path / "recipe.json").write_text(RECIPE.model_dump_json())
    with pytest.raises(ModelError, match="holds no finished training"):
        pack_run(tmp_path, tmp_path / "model")


def test_a_damaged_account_of_the_training_is_named(tmp_path: Path) -> None:
    run = train(tmp_path, None)
    (run / "fold_all" / "trained_on.json").write_text('{"cases": 3}')
    with pytest.raises(ModelError, match=r"trained_on\.json: "):
        pack_run(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()
