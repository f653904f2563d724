"""TensorBoard's log, read by TensorBoard (extra ``train``)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.datasets.cases import load_dataset
from volseg.training import events, loop
from volseg.training.run import Budget, train_fold

TRAINING = {"batch_size": 1, "validations": 2, "folds": 2}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)
    cases = load_dataset(write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)}))
    recipe = tiny_recipe(window=[8, 8, 8], training=TRAINING)
    train_fold(recipe, cases, tmp_path / "run", 0, Budget(steps=2), resume=False, report=lambda *_: None)
    return tmp_path / "run" / "fold_0"


def test_scalars_are_those_of_the_table_and_a_case_is_shown(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("tensorboard", reason="the log is written where tensorboard is installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = request.getfixturevalue("run")
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    rows = list(csv.DictReader((folder / "progress.csv").read_text().splitlines()))
    for tag, column in (("training/loss", "loss"), ("Dice/dice", "dice")):
        logged = [(event.step, event.value) for event in found.Scalars(tag)]
        expected = [(int(row["step"]), float(row[column])) for row in rows]
        assert [step for step, _ in logged] == [step for step, _ in expected]
        assert [value for _, value in logged] == pytest.approx([value for _, value in expected])
    pictures = found.Images("example")
    assert [picture.step for picture in pictures] == [1, 2]
    assert pictures[0].encoded_image_string.startswith(b"\x89PNG")


def test_without_it_nothing_is_written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert not events.installed()
    assert not (request.getfixturevalue("run") / "tensorboard").exists()
