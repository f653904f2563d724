"""Devices and precisions, as far as a machine without a GPU can say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from tests.helpers.training_cases import as_case
from volseg.datasets.cases import load_dataset
from volseg.errors import TrainingError, UsageError
from volseg.training import loop
from volseg.training.dataset import TrainingCase
from volseg.training.precision import choose_precision
from volseg.training.run import Budget, train_fold


def silent(*_: Any) -> None:
    pass


@pytest.fixture
def cases() -> list[TrainingCase]:
    made = []
    for seed in range(2):
        image, labels = blob_case(seed)
        made.append(as_case(torch.from_numpy(labels), torch.from_numpy((image - 100) / 80)))
    return made


@pytest.mark.parametrize(
    ("device", "native", "on_gpu", "expected"),
    [
        ("cpu", True, True, "bf16"),
        ("cpu", False, True, "fp32"),
        ("cuda", False, True, "bf16"),
        ("cuda", True, False, "fp16"),
        ("mps", True, True, "fp32"),
    ],
)
def test_auto(device: str, native: bool, on_gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: on_gpu or including_emulation)
    assert choose_precision("auto", device, native_bf16=native) == expected


def test_what_the_recipe_names_is_taken() -> None:
    assert choose_precision("fp32", "cpu", native_bf16=True) == "fp32"
    assert choose_precision("bf16", "cpu", native_bf16=False) == "bf16"
    assert choose_precision("fp16", "cuda", native_bf16=False) == "fp16"
    for device in ("cpu", "mps"):
        with pytest.raises(UsageError, match=f"fp16 is for --device cuda; bf16, fp32 and auto train on {device} too"):
            choose_precision("fp16", device, native_bf16=True)


def test_fp16_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    cases = load_dataset(write_dataset(tmp_path / "data", {"case": blob_case(0)}))
    recipe = tiny_recipe(training={"precision": "fp16"})
    with pytest.raises(UsageError, match="fp16 is for --device cuda"):
        train_fold(recipe, cases, tmp_path / "run", None, Budget(steps=1), resume=False, report=silent)
    assert not (tmp_path / "run").exists()


def test_bf16_trains_weights_that_are_fp32(
    cases: list[TrainingCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "native_bf16", lambda: False)
    computed = set()
    training = {"precision": "bf16", "optimiser": "adamw", "learning_rate": 1e-2, "warmup_fraction": 0.0}
    trainer = loop.Trainer(tiny_recipe(window=[8, 8, 8], training=training), cases, [], tmp_path, silent)
    trainer.network.outputs[0].register_forward_hook(lambda _, __, logits: computed.add(logits.dtype))
    batch = trainer.batch(0)
    monkeypatch.setattr(trainer, "batch", lambda _: batch)
    values = [trainer.step(step, 24) for step in range(24)]
    assert computed == {torch.bfloat16}
    assert all(map(math.isfinite, values))
    assert sum(values[-4:]) < 0.9 * sum(values[:4])
    assert {weight.dtype for weight in trainer.network.parameters()} == {torch.float32}
    assert {weight.grad.dtype for weight in trainer.network.parameters() if weight.grad is not None} == {torch.float32}
    assert {value.dtype for value in trainer.average.state.values()} == {torch.float32}
    kept = [value for state in trainer.optimiser.state.values() for value in state.values()]
    assert {value.dtype for value in kept} == {torch.float32}


@pytest.fixture
def scaled(cases: list[TrainingCase], tmp_path: Path) -> loop.Trainer:
    """A trainer in fp32 whose loss is scaled as in fp16: processors scale too."""
    recipe = tiny_recipe(window=[8, 8, 8], training={"precision": "fp32", "batch_size": 1, "warmup_fraction": 0.0})
    trainer = loop.Trainer(recipe, cases, [], tmp_path, silent)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return trainer


def test_scaling_the_loss_changes_no_step(scaled: loop.Trainer, cases: list[TrainingCase], tmp_path: Path) -> None:
    plain = loop.Trainer(scaled.recipe, cases, [], tmp_path, silent)
    values = [[trainer.step(step, 9) for step in range(2)] for trainer in (plain, scaled)]
    assert values[0] == values[1]  # a power of two: exact
    for one, other in zip(plain.network.parameters(), scaled.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_scaled_gradient_that_overflows_leaves_the_step_out(scaled: loop.Trainer) -> None:
    before = {name: value.clone() for name, value in scaled.network.state_dict().items()}
    weight = scaled.network.outputs[0].weight
    assert isinstance(weight, torch.Tensor)
    hook = weight.register_hook(lambda gradient: gradient * math.inf)
    assert math.isfinite(scaled.step(0, 9))
    assert scaled.scaler.get_scale() == 2
    assert all(torch.equal(value, before[name]) for name, value in scaled.network.state_dict().items())
    scaled.step(1, 9)
    # Scaled by 1 it isn't the scale that makes it overflow.
    with pytest.raises(TrainingError, match="its gradient inf at step 2"):
        scaled.step(2, 9)
    hook.remove()


def test_the_scale_is_resumed(scaled: loop.Trainer, cases: list[TrainingCase], tmp_path: Path) -> None:
    scaled.step(0, 9)
    torch.save(scaled.state(), tmp_path / "last.pt")
    other = loop.Trainer(scaled.recipe, cases, [], tmp_path, silent)
    other.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    other.resume()
    assert other.scaler.get_scale() == 4
    assert other.scaler.state_dict() == scaled.scaler.state_dict()
