"""Real training, as small as it gets: it learns, goes on where it stopped, and stops where it must."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.config import Recipe
from volseg.datasets.cases import Case, load_dataset
from volseg.errors import InputError, TrainingError, UsageError
from volseg.training import loop
from volseg.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from volseg.training.run import Budget, train_fold

FEW: dict[str, Any] = {
    "window": [8, 8, 8],
    "training": {"batch_size": 1, "validations": 2, "folds": 2, "ema_decay": 0.9},
}

#: Flips alone.
EASY = {
    f"{name}_probability": 0.0 for name in ("rotation", "scaling", "noise", "blur", "brightness", "contrast", "gamma")
}


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    return load_dataset(write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(4)}))


@pytest.fixture(autouse=True)
def few_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three reports a run, all kept; fp32, which is faster where a network has so few channels."""
    monkeypatch.setattr(loop, "REPORTS", 3)
    monkeypatch.setattr(loop, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A picture of the curves takes longer than a run of these networks."""
    if "curves" not in request.node.name:
        monkeypatch.setattr(loop, "draw_curves", lambda *_: None)


def silent(progress: Progress, row: dict[str, Any]) -> None:
    pass


def train(
    recipe: Recipe, cases: tuple[Case, ...], run: Path, steps: int | None = 6, fold: int | None = None, **more: Any
) -> Progress:
    budget = more.pop("budget", Budget(steps=steps))
    return train_fold(recipe, cases, run, fold, budget, **{"resume": False, "report": silent, **more})


def last(run: Path, fold: str = "all") -> dict[str, Any]:
    return load_checkpoint(run / f"fold_{fold}" / "last.pt")


def assert_same_weights(first: dict[str, Any], second: dict[str, Any]) -> None:
    for part in ("network", "average"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), (part, name)


def test_it_learns_what_is_bright(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    training = {"learning_rate": 2e-2, "validations": 2, "folds": 4, "ema_decay": 0.8, "augmentation": EASY}
    recipe = tiny_recipe(network={"features": [8, 8]}, training=training)
    progress = train(recipe, cases, tmp_path / "run", steps=80, fold=1)
    losses = [row["loss"] for row in progress.history]
    assert losses[-1] < 0.3 * losses[0]
    assert progress.best is not None
    assert progress.best > 0.9
    trained_on = json.loads((tmp_path / "run" / "fold_1" / "trained_on.json").read_text())
    assert len(trained_on["cases"]) == 3
    assert trained_on["steps"] == 80
    assert trained_on["extent_mm"] == [[20, 20], [18, 18], [16, 16]]
    assert trained_on["spacing_mm"] == [[1, 1]] * 3


class KilledError(Exception):
    pass


@pytest.mark.parametrize("fold", [None, 0])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path, cases: tuple[Case, ...], fold: int | None) -> None:
    recipe = tiny_recipe(**FEW)
    whole = train(recipe, cases, tmp_path / "whole", steps=9, fold=fold)

    def kill(progress: Progress, row: dict[str, Any]) -> None:
        if progress.step >= 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, cases, tmp_path / "stopped", steps=9, fold=fold, report=kill)
    name = "all" if fold is None else str(fold)
    assert not (tmp_path / "stopped" / f"fold_{name}" / "trained_on.json").exists()
    assert last(tmp_path / "stopped", name)["progress"]["step"] == 3
    # The number of steps is the checkpoint's: what the second call says doesn't matter.
    resumed = train(recipe, cases, tmp_path / "stopped", steps=500, fold=fold, resume=True)

    def told(progress: Progress) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in progress.history]

    assert told(resumed) == told(whole)
    assert (resumed.step, resumed.best, resumed.best_step) == (9, whole.best, whole.best_step)
    assert_same_weights(last(tmp_path / "whole", name), last(tmp_path / "stopped", name))


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=3)
    before = last(tmp_path / "run")
    assert train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=9, resume=True).step == 3
    assert_same_weights(before, last(tmp_path / "run"))


def test_a_run_is_neither_overwritten_nor_resumed_with_another_recipe(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=1)
    with pytest.raises(UsageError, match="--resume"):
        train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=1)
    with pytest.raises(UsageError, match="another recipe"):
        train(tiny_recipe(**FEW, tile_step=0.25), cases, tmp_path / "run", steps=1, resume=True)
    with pytest.raises(UsageError, match="another recipe"):
        train(tiny_recipe(**FEW, tile_step=0.25), cases, tmp_path / "run", steps=1, fold=1)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["tile_step"] == 0.5


def test_a_damaged_checkpoint_is_named(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=1)
    checkpoint = tmp_path / "run" / "fold_all" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"last\.pt: the checkpoint can't be read"):
        train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=1, resume=True)


def test_a_seed_gives_one_run_and_another_seed_another(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    recipe = tiny_recipe(**FEW)
    first, again = (train(recipe, cases, tmp_path / name, steps=2).history for name in "ab")
    other = train(tiny_recipe(**{**FEW, "training": {**FEW["training"], "seed": 1}}), cases, tmp_path / "c", steps=2)
    assert [row["loss"] for row in first] == [row["loss"] for row in again]
    assert [row["loss"] for row in first] != [row["loss"] for row in other.history]
    assert_same_weights(last(tmp_path / "a"), last(tmp_path / "b"))


def test_minutes_become_a_number_of_steps_and_the_timed_ones_are_undone(
    tmp_path: Path, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(**FEW)
    monkeypatch.setattr(loop.Trainer, "plan_steps", limited(loop.Trainer.plan_steps))
    planned = train(recipe, cases, tmp_path / "planned", fold=0, budget=Budget(minutes=0.5))
    assert planned.step == planned.total == 5
    assert last(tmp_path / "planned", "0")["progress"]["total"] == 5
    train(recipe, cases, tmp_path / "counted", steps=5, fold=0)
    assert_same_weights(last(tmp_path / "planned", "0"), last(tmp_path / "counted", "0"))


def limited(plan: Any) -> Any:
    """`plan_steps` as it is, and then 5 of its steps."""

    def plan_few(trainer: loop.Trainer, seconds: float) -> int:
        assert 0 < seconds < 30
        assert plan(trainer, seconds) > 5
        return 5

    return plan_few


def test_twice_the_time_is_about_twice_the_steps(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    from volseg.training.dataset import prepare_case

    trainer = loop.Trainer(
        tiny_recipe(**FEW), [prepare_case(case, tiny_recipe()) for case in cases], [], tmp_path, silent
    )
    few, many = trainer.plan_steps(60), trainer.plan_steps(600)
    assert 4 < many / few < 25
    assert trainer.plan_steps(0.0) == 1


def test_a_loss_that_is_not_finite_names_step_and_cases(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    broken = {**FEW, "training": {**FEW["training"], "learning_rate": 1e30, "warmup_fraction": 0.0}}
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+, on patches of case_\d") as caught:
        train(tiny_recipe(**broken), cases, tmp_path / "run", steps=20)
    kept = (tmp_path / "run" / "fold_all" / "last.pt").exists()
    assert ("last.pt" if kept else "there is no checkpoint yet") in str(caught.value)
    assert not (tmp_path / "run" / "fold_all" / "trained_on.json").exists()


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    tmp_path: Path, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = loop.Trainer.batch

    def poisoned(self: loop.Trainer, step: int) -> Any:
        if step == 1:
            self.network.outputs[0].weight.register_hook(lambda gradient: gradient * math.inf)
        return batch(self, step)

    monkeypatch.setattr(loop.Trainer, "batch", poisoned)
    with pytest.raises(TrainingError, match=r"the loss is \d\S+ and its gradient (nan|inf) at step 1, .*last\.pt"):
        train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=9)
    assert all(value.isfinite().all() for value in last(tmp_path / "run")["network"].values())


def test_patience_stops_early(tmp_path: Path, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.3, 0.5, 0.4, 0.45, 0.9])
    monkeypatch.setattr(
        loop.Trainer,
        "validate",
        lambda _: {"dice": next(scores), "dice Anterior hippocampus": 0.1, "dice Posterior hippocampus": 0.2},
    )
    impatient = {**FEW, "training": {**FEW["training"], "validations": 5, "patience": 2}}
    progress = train(tiny_recipe(**impatient), cases, tmp_path / "run", steps=10, fold=0)
    assert (progress.step, progress.best, progress.best_step) == (8, 0.5, 4)
    best = load_checkpoint(tmp_path / "run" / "fold_0" / "best.pt")
    assert best["progress"]["step"] == 4
    assert (tmp_path / "run" / "fold_0" / "trained_on.json").exists()
    assert train(tiny_recipe(**impatient), cases, tmp_path / "run", fold=0, resume=True).step == 8


def test_a_kill_between_the_checkpoints_loses_no_best_one(
    tmp_path: Path, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = save_checkpoint, iter(range(100))

    def killed(path: Path, state: dict[str, Any]) -> None:
        if next(calls) == 2:  # of the first validation's two the second
            raise KilledError
        save(path, state)

    monkeypatch.setattr(
        loop.Trainer,
        "validate",
        lambda self: dict.fromkeys(
            ("dice", "dice Anterior hippocampus", "dice Posterior hippocampus"), {3: 0.5, 6: 0.4}[self.progress.step]
        ),
    )
    monkeypatch.setattr(loop, "save_checkpoint", killed)
    recipe = tiny_recipe(**FEW)
    with pytest.raises(KilledError):
        train(recipe, cases, tmp_path / "run", steps=6, fold=0)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    progress = train(recipe, cases, tmp_path / "run", steps=6, fold=0, resume=True)
    best = load_checkpoint(tmp_path / "run" / "fold_0" / "best.pt")["progress"]
    assert (best["best"], best["best_step"]) == (progress.best, progress.best_step) == (0.5, 3)


def test_the_table_and_the_curves(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    progress = train(tiny_recipe(**FEW), cases, tmp_path / "run", steps=6, fold=0)
    folder = tmp_path / "run" / "fold_0"
    rows = list(csv.DictReader((folder / "progress.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 3, 4, 6]
    validated = [row["step"] for row in rows if row["dice"]]
    assert validated == ["3", "6"]
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    assert float(rows[-1]["dice"]) == progress.history[-1]["dice"]
    assert list(rows[0]) == [
        "step", "seconds", "loss", "learning_rate", "dice", "dice Anterior hippocampus", "dice Posterior hippocampus",
    ]  # fmt: skip
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob(".*"))


def test_validation_is_that_of_inference(
    tmp_path: Path, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Dice that a run reports is what its packed model reaches through the Python API."""
    import volseg
    from volseg.training import pack
    from volseg.training.folds import split

    recipe = tiny_recipe(**FEW)
    progress = train(recipe, cases, tmp_path / "run", steps=2, fold=0)
    monkeypatch.setattr(pack, "choose_postprocessing", lambda recipe, _: (recipe.postprocess, []))
    pack.pack_run(tmp_path / "run", tmp_path / "model")
    model = volseg.load_model(tmp_path / "model")
    dice: list[list[float]] = []
    for case in split(cases, recipe, 0)[1]:
        mask = model.predict(volseg.load(case.images[0]), engine="torch", precision="fp32").array
        truth = np.asarray(nibabel.load(case.label).dataobj)
        dice.append([2 * np.sum((mask == v) & (truth == v)) / (np.sum(mask == v) + np.sum(truth == v)) for v in (1, 2)])
    best = max(row["dice"] for row in progress.history if row["dice"] is not None)
    assert np.mean(dice) == pytest.approx(best)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"window": [18, 16, 17]}, r"recipe tiny: window: .*2 x 2 x 2.*16 or 18"),
        ({"window": [6, 8, 8], "network": {"features": [2, 2, 2]}}, "4 or 8"),
    ],
)
def test_a_window_that_the_network_can_t_halve_is_refused_with_those_that_fit(
    tmp_path: Path, cases: tuple[Case, ...], changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        train(tiny_recipe(**changes), cases, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fold_that_isn_t_there_or_holds_out_nothing_is_refused(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    with pytest.raises(UsageError, match="fold 2 isn't one of the recipe's: 0 to 1"):
        train(tiny_recipe(**FEW), cases, tmp_path / "run", fold=2)
    with pytest.raises(UsageError, match=r"fold 4 .* 4 cases"):
        train(tiny_recipe(training={"folds": 5}), cases, tmp_path / "run", fold=4)
    assert not (tmp_path / "run").exists()


def test_a_run_that_can_t_be_there(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="fold_all: this folder can't be made: Not a directory"):
        train(tiny_recipe(**FEW), cases, tmp_path / "file")


def test_nothing_to_train_on(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    with pytest.raises(UsageError, match="no case to train on"):
        train(tiny_recipe(training={"held_out": [case.name for case in cases]}), cases, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bad_case_is_named_before_anything_is_written(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    cases[2].images[0].write_bytes(b"\x1f\x8b\x08 not gzip at all")
    with pytest.raises(InputError, match=r"case_2\.nii\.gz"):
        train(tiny_recipe(**FEW), cases, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["cache"]
