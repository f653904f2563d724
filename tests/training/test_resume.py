"""Nothing is lost: kill -9 at random moments, and a disk that fills up."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.datasets.cases import load_dataset
from volseg.errors import TrainingError
from volseg.training import loop
from volseg.training.checkpoint import Progress, load_checkpoint
from volseg.training.run import Budget, train_fold

TRAINING = {"batch_size": 1, "validations": 3, "folds": 2, "ema_decay": 0.9}

pytestmark = pytest.mark.slow

#: Forks a process for each attempt, so that torch and what training imports of it late are imported once, and kills it
#: at a random moment.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch, torch._dynamo, torch.utils.tensorboard
torch.set_num_threads(1)
from tests.training.test_resume import train_once

folder, kills = Path(sys.argv[1]), 0

def attempt(run, resume):
    child = os.fork()
    if not child:
        train_once(folder, run, resume)
        os._exit(0)
    return child

start = time.monotonic()
assert os.waitpid(attempt("whole", False), 0)[1] == 0
seconds = time.monotonic() - start
rng = random.Random(4)
for number in range(200):
    child = attempt("killed", True)
    if number < 6:
        time.sleep(seconds * rng.random() * 0.7)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    kills += os.WIFSIGNALED(status)
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
print(kills)
"""


def train_once(folder: Path, run: str, resume: bool) -> None:
    loop.REPORTS, loop.KEEP_EVERY_S = 12, 0.0
    vars(loop)["draw_curves"] = lambda *_: None  # a picture takes longer than the steps between two
    recipe = tiny_recipe(window=[8, 8, 8], training=TRAINING)
    cases = load_dataset(folder / "data")
    train_fold(recipe, cases, folder / run, 0, Budget(steps=12), resume=resume, report=lambda *_: None)


def test_kill_9_at_any_moment_changes_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)})
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    for name in ("last.pt", "best.pt"):
        whole, killed = (load_checkpoint(tmp_path / run / "fold_0" / name) for run in ("whole", "killed"))
        assert_same(_timeless(whole), _timeless(killed))
    scores = [(tmp_path / run / "fold_0" / "scores.json").read_text() for run in ("whole", "killed")]
    assert scores[0] == scores[1]
    assert not list((tmp_path / "killed" / "fold_0").glob(".*.part"))


def train_minutes(folder: Path, dies_at: int = 0) -> None:
    """A run limited in minutes, for which 9 steps are planned; it kills itself after one of them."""
    plan_steps = loop.Trainer.plan_steps
    with pytest.MonkeyPatch.context() as patch:
        # The real planning trains a few steps and undoes them; how many fit depends on the machine.
        patch.setattr(loop, "REPORTS", 12)
        patch.setattr(loop, "KEEP_EVERY_S", 0.0)
        patch.setattr(loop, "draw_curves", lambda *_: None)
        patch.setattr(loop.Trainer, "plan_steps", lambda trainer, seconds: min(plan_steps(trainer, seconds), 9))

        def report(progress: Progress, row: dict[str, Any]) -> None:
            if progress.step == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

        recipe, cases = tiny_recipe(window=[8, 8, 8], training=TRAINING), load_dataset(folder / "data")
        budget = Budget(minutes=60)
        train_fold(recipe, cases, folder / "killed", 0, budget, resume=not dies_at, report=report)


def test_a_killed_run_of_minutes_goes_on_as_the_one_of_as_many_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("REPORTS", 12), ("KEEP_EVERY_S", 0.0), ("draw_curves", lambda *_: None)):
        monkeypatch.setattr(loop, name, value)
    write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)})
    script = (
        "import sys; from pathlib import Path; import torch; from tests.training.test_resume import train_minutes;"
        " torch.set_num_threads(1); train_minutes(Path(sys.argv[1]), 4)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = tmp_path / "killed" / "fold_0" / "last.pt"
    progress = load_checkpoint(killed)["progress"]
    assert (progress["step"], progress["total"]) == (4, 9)
    train_minutes(tmp_path)
    recipe, cases = tiny_recipe(window=[8, 8, 8], training=TRAINING), load_dataset(tmp_path / "data")
    train_fold(recipe, cases, tmp_path / "whole", 0, Budget(steps=9), resume=False, report=lambda *_: None)
    whole = load_checkpoint(tmp_path / "whole" / "fold_0" / "last.pt")
    assert len(whole["progress"]["history"]) == 9
    assert_same(_timeless(whole), _timeless(load_checkpoint(killed)))


def _timeless(state: dict[str, Any]) -> dict[str, Any]:
    for row in state["progress"]["history"]:
        row["seconds"] = 0.0
    return state


def assert_same(first: Any, second: Any) -> None:
    """Equal to the last bit, however nested."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_same(value, second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class StoppedError(Exception):
    pass


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)
    monkeypatch.setattr(loop, "KEEP_EVERY_S", 0.0)
    cases = load_dataset(write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)}))
    recipe = tiny_recipe(window=[8, 8, 8], training={**TRAINING, "validations": 1})

    def train(run: str, report: Any = lambda *_: None) -> None:
        train_fold(recipe, cases, tmp_path / run, None, Budget(steps=4), resume=True, report=report)

    def stop(*_: Any) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        train("full", stop)
    checkpoint = tmp_path / "full" / "fold_all" / "last.pt"
    before = checkpoint.read_bytes()
    with (
        files_of_at_most(len(before) // 2),
        pytest.raises(TrainingError, match=r"last\.pt: the checkpoint can't be wr"),
    ):
        train("full")
    assert checkpoint.read_bytes() == before
    assert not list(checkpoint.parent.glob(".*"))
    train("full")
    train("roomy")
    assert_same(*(_timeless(load_checkpoint(tmp_path / run / "fold_all" / "last.pt")) for run in ("full", "roomy")))
