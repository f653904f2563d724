"""Two processes on this machine, joined over gloo, against one with twice the batch.

All that the two do is done once, by `PAIR`: they are forked where torch is imported already, and has started no thread.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT
from tests.helpers.tiny import blob_case, changed, tiny_recipe, write_dataset
from tests.helpers.training_cases import as_case
from volseg.config import Recipe
from volseg.datasets.cases import Case, load_dataset
from volseg.errors import TrainingError, UsageError, VolsegError
from volseg.training import loop, usage
from volseg.training.checkpoint import Progress, load_checkpoint
from volseg.training.dataset import TrainingCase
from volseg.training.processes import ALONE, Processes, launched
from volseg.training.run import Budget, train_fold

pytestmark = pytest.mark.slow

REGIONS = [
    {"value": 1, "name": "whole", "colour": [1, 2, 3], "members": [1, 2]},
    {"value": 2, "name": "core", "colour": [1, 2, 3], "members": [2]},
]
CROSS, WEIGHTED = {"kind": "cross_entropy"}, {"class_weights": [0.2, 1.0, 3.0], "ignored_label": 7}
#: Sums that have to be added up over processes: of a batch's and a patch's overlap, and what is divided by.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "weights, ignored and boundaries": {"training": {**WEIGHTED, "boundary_weight": 2.0}},
    "patches of their own": {"training": {"loss": [{"kind": "dice", "over": "sample"}, CROSS], **WEIGHTED}},
    "generalised": {"training": {"loss": [{"kind": "generalised_dice"}, {"kind": "focal"}], **WEIGHTED}},
    "regions": {"output": "sigmoid", "labels": REGIONS, "training": {"loss": [{"kind": "tversky"}, CROSS]}},
    "accumulated": {"training": {"accumulated_batches": 2}},
}
STEPS = 3


def recipe_of(name: str, batch: int, **changes: Any) -> Recipe:
    # SGD: a gradient that is 0 but for rounding moves Adam's weights as far as any other.
    training = {
        "batch_size": batch, "precision": "fp32", "optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.05,
        "warmup_fraction": 0.0,
    }  # fmt: skip
    base = {"window": [8, 8, 8], "network": {"features": [4, 8, 8, 8]}, "training": training}
    return tiny_recipe(**changed(changed(base, RECIPES[name]), changes))


def cases_of(recipe: Recipe) -> list[TrainingCase]:
    """Three cases; where the recipe ignores a label, much of one and none of another is ignored."""
    ignored, made = recipe.training.ignored_label, []
    for seed in range(3):
        image, labels = blob_case(seed)
        if ignored is not None:
            labels[: 6 * seed] = ignored
        scaled = torch.from_numpy((image - 100) / 80)
        made.append(as_case(torch.from_numpy(labels), scaled, name=f"case_{seed}", ignored=ignored or -1))
    return made


def silent(*_: Any) -> None:
    pass


def steps(name: str, batch: int, processes: Processes = ALONE) -> tuple[list[float], dict[str, Any]]:
    recipe = recipe_of(name, batch)
    trainer = loop.Trainer(recipe, cases_of(recipe), [], Path(), silent, processes)
    values = [trainer.step(step, 10) for step in range(STEPS)]
    return values, {key: value.clone() for key, value in trainer.network.state_dict().items()}


RUN: dict[str, Any] = {"training": {"validations": 2, "folds": 2, "ema_decay": 0.9}}


def train(cases: Sequence[Case], run: Path, batch: int, processes: Processes = ALONE, **more: Any) -> Progress:
    recipe = recipe_of("default", batch, **changed(RUN, more.pop("changes", {})))
    given = {"resume": False, "report": silent, **more}
    return train_fold(recipe, cases, run, 0, Budget(steps=6), processes=processes, **given)


def failure(work: Callable[[], Any]) -> tuple[str, str]:
    """Kind and text of the error that `work` raises."""
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def kill(progress: Progress, row: dict[str, Any]) -> None:
    if progress.step >= 3:
        raise KeyError("killed")


def fail_in_second(processes: Processes) -> None:
    with processes.together():
        if processes.index == 1:
            raise ValueError("boom")


def plan(processes: Processes) -> int:
    """Each would plan another number of steps."""
    recipe = recipe_of("default", 1)
    trainer = loop.Trainer(recipe, cases_of(recipe), [], Path(), silent, processes)
    return trainer.plan_steps(5.0 if processes.main else 5000.0)


def used(processes: Processes, folder: Path) -> float:
    """Processor seconds of two processes that take 1 and 2."""
    patch = pytest.MonkeyPatch()
    patch.setattr(usage, "_cpu_seconds", lambda: 0.0)
    meter = usage.Meter(folder, processes)
    patch.setattr(usage, "_cpu_seconds", lambda: 1.0 + processes.index)
    found = meter.now().cpu_seconds
    patch.undo()
    return found


def all_of_it(processes: Processes, folder: Path) -> dict[str, Any]:
    cases = load_dataset(folder / "data")
    broken = {"training": {"learning_rate": 1e30}}
    found: dict[str, Any] = {
        "who": (processes.index, processes.count, processes.main, processes.first_here, processes.device.type),
        "shares": [list(processes.share("abcde")), processes.joined([c.upper() for c in processes.share("abcde")])],
        "from main": processes.from_main(processes.index),
        "failure": failure(lambda: fail_in_second(processes)),
        "planned": plan(processes),
        "cpu": used(processes, folder),
        "nan": failure(lambda: train(cases, folder / "nan", 1, processes, changes=broken)),
        "batch": failure(
            lambda: train(cases, folder / "bn", 1, processes, changes={"network": {"normalisation": "batch"}})
        ),
    }
    for name in RECIPES:
        found[name] = steps(name, 2, processes)
    found["history"] = train(cases, folder / "whole", 1, processes).history
    report = kill if processes.main else silent
    found["killed"] = failure(lambda: train(cases, folder / "killed", 1, processes, report=report))
    found["resumed"] = train(cases, folder / "killed", 1, processes, resume=True).history
    found["finished"] = train(cases, folder / "killed", 1, processes, resume=True).step
    return found


def pair(folder: Path) -> None:
    """Fork two processes, tell them as torchrun would who they are, and wait for both."""
    torch.set_num_threads(1)
    loop.REPORTS, loop.KEEP_EVERY_S = 3, 0.0
    pytest.MonkeyPatch().setattr(loop, "draw_curves", silent)  # a picture takes longer than these runs
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for index in range(2):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2", "RANK": str(index), "LOCAL_RANK": str(index), "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        with launched("cpu") as processes:
            torch.save(all_of_it(processes, folder), folder / f"found_{index}.pt")
        os._exit(0)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


PAIR = (
    "import sys, pathlib, accelerate, torch._dynamo, torch.utils.tensorboard\n"
    "from tests.training.test_processes import pair\npair(pathlib.Path(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pair")
    write_dataset(made / "data", {f"case_{n}": blob_case(n) for n in range(5)})
    done = subprocess.run(
        [sys.executable, "-c", PAIR, str(made)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"found_{index}.pt", weights_only=True) for index in range(2)]


def test_each_knows_which_it_is(found: list[dict[str, Any]]) -> None:
    assert [each["who"] for each in found] == [(0, 2, True, True, "cpu"), (1, 2, False, False, "cpu")]
    assert [each["from main"] for each in found] == [0, 0]
    assert [each["shares"] for each in found] == [
        [["a", "c", "e"], ["A", "B", "C", "D", "E"]],
        [["b", "d"], ["A", "B", "C", "D", "E"]],
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_are_one_with_twice_the_batch(name: str, found: list[dict[str, Any]]) -> None:
    values, weights = steps(name, 4)
    for each in found:
        assert each[name][0] == pytest.approx(values, rel=2e-5)
        for key, value in weights.items():
            torch.testing.assert_close(each[name][1][key], value, rtol=1e-4, atol=1e-5)
    # To the last bit: nothing but their gradients, and those are added up, keeps them equal.
    assert found[0][name][0] == found[1][name][0]
    assert all(torch.equal(value, found[1][name][1][key]) for key, value in found[0][name][1].items())


def test_one_that_fails_stops_the_other(found: list[dict[str, Any]]) -> None:
    assert found[1]["failure"] == ("ValueError", "boom")
    assert found[0]["failure"] == ("TrainingError", "process 1 of 2 failed: ValueError: boom")
    assert found[0]["killed"] == ("KeyError", "'killed'")
    assert found[1]["killed"] == ("TrainingError", "process 0 of 2 failed: KeyError: 'killed'")


def test_a_loss_that_is_not_finite_stops_both(found: list[dict[str, Any]]) -> None:
    kind, text = found[0]["nan"]
    assert kind == "TrainingError"
    assert "the loss is" in text
    assert text.count("case_") == 2  # the patches of both
    assert found[1]["nan"] == (kind, text)


def test_both_plan_as_many_steps(found: list[dict[str, Any]]) -> None:
    assert found[0]["planned"] == found[1]["planned"] >= 1


def test_batch_normalisation_of_two_on_a_cpu_is_refused(found: list[dict[str, Any]], folder: Path) -> None:
    for each in found:
        assert each["batch"][0] == "UsageError"
        assert "normalisation batch is over the patches of one process on a CPU, and these are 2" in each["batch"][1]
    assert not (folder / "bn").exists()


def test_processor_time_is_that_of_both(found: list[dict[str, Any]]) -> None:
    assert [each["cpu"] for each in found] == [3.0, 3.0]


def told(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_a_run_of_two_is_the_run_of_one_with_twice_the_batch(
    found: list[dict[str, Any]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPORTS", 3)
    monkeypatch.setattr(loop, "draw_curves", silent)
    alone = train(load_dataset(folder / "data"), tmp_path / "run", 2)
    assert told(found[0]["history"]) == told(found[1]["history"])
    assert len(alone.history) == len(found[0]["history"])
    for ours, theirs in zip(told(found[0]["history"]), told(alone.history), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key] == (None if value is None else pytest.approx(value, rel=1e-4)), key
    scores = [json.loads((run / "fold_0" / "scores.json").read_text()) for run in (folder / "whole", tmp_path / "run")]
    assert [case["case"] for case in scores[0]["cases"]] == [case["case"] for case in scores[1]["cases"]]
    for ours, theirs in zip(*(each["cases"] for each in scores), strict=True):
        for label, other in zip(ours["labels"], theirs["labels"], strict=True):
            assert label["dice"] == pytest.approx(other["dice"], abs=0.01)
    # Masks and pictures of either's share, and all that one writes.
    names = [
        sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if "tfevents" not in path.name)
        for run in (folder / "whole", tmp_path / "run")
    ]
    assert names[0] == names[1]
    assert f"fold_0/validation/{scores[0]['cases'][1]['case']}.nii.gz" in names[0]


def test_a_resumed_run_of_two_is_the_one_that_never_stopped(found: list[dict[str, Any]], folder: Path) -> None:
    assert told(found[0]["resumed"]) == told(found[0]["history"])
    states = [load_checkpoint(folder / run / "fold_0" / "last.pt") for run in ("whole", "killed")]
    for part in ("network", "average"):
        assert all(torch.equal(value, states[1][part][key]) for key, value in states[0][part].items())
    assert [each["finished"] for each in found] == [6, 6]


def test_a_run_is_resumed_by_as_many_processes(folder: Path, found: list[dict[str, Any]]) -> None:
    run = folder / "killed"
    (run / "fold_0" / "trained_on.json").unlink()
    with pytest.raises(TrainingError, match=r"last\.pt: was trained by 2 processes, and these are 1: .* go on with 2"):
        train(load_dataset(folder / "data"), run, 1, resume=True)


def test_a_device_that_is_not_there_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="device 'tpu' isn't there; this machine has cpu"),
        launched("tpu"),
    ):
        pass


def test_what_is_alone_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)  # an import of it would fail
    with launched("cpu") as processes:
        assert (processes.index, processes.count, processes.main) == (0, 1, True)
        assert processes.gathered("x") == ["x"]
        assert not torch.distributed.is_initialized()
        with pytest.raises(VolsegError, match="as it is"), processes.together():
            raise UsageError("as it is")


def test_without_accelerate_several_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with (
        pytest.raises(UsageError, match=r"accelerate, which isn't installed: pip install volseg\[train\]"),
        launched("cpu"),
    ):
        pass


def test_torchrun_runs_the_command(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)})
    recipe = recipe_of("default", 1, **RUN)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    launch = ["--standalone", "--nproc-per-node", "2"]
    arguments = ["train", "recipe.yaml", "--data", "data", "-o", "run", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "volseg", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "run: finished. Make a model of it: volseg model pack run -o MODEL\n"
    assert done.stderr.count("2 processes on cpu train together: 2 patches a batch") == 1
    assert done.stderr.count("finished at step 2") == 1
    assert "Warning" not in done.stderr
    assert load_checkpoint(tmp_path / "run" / "fold_all" / "last.pt")["processes"] == 2
