"""One step of each optimiser by hand, what is decayed, and batches whose gradients are added up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny import blob_case, tiny_recipe
from tests.helpers.training_cases import as_case
from volseg.config import TrainingConfig
from volseg.network.unet import UNet
from volseg.training import loop
from volseg.training.dataset import TrainingCase
from volseg.training.optimiser import build_optimiser


class One(nn.Module):
    """One weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))


def steps(gradients: list[float], **changes: Any) -> list[float]:
    """The weight after each step at a learning rate of 0.1."""
    network = One()
    optimiser = build_optimiser(network, TrainingConfig.model_validate({"weight_decay": 0.0, **changes}))
    seen = []
    for gradient in gradients:
        network.weight.grad = torch.full((1, 1), float(gradient))
        for group in optimiser.param_groups:
            group["lr"] = 0.1
        optimiser.step()
        seen.append(float(network.weight.detach()))
    return seen


def test_sgd_has_nesterov_s_momentum() -> None:
    # Velocities 1, then 0.9 + 1 = 1.9; each step goes gradient + 0.9 velocity.
    assert steps([1, 1], optimiser="sgd") == pytest.approx([1 - 0.19, 1 - 0.19 - 0.1 * (1 + 0.9 * 1.9)])
    assert steps([1], optimiser="sgd", momentum=0.5) == pytest.approx([1 - 0.15])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_s_first_step_is_the_rate_whatever_the_gradient(name: str) -> None:
    assert steps([1], optimiser=name) == pytest.approx([0.9])
    assert steps([1e-3], optimiser=name) == pytest.approx([0.9], abs=1e-5)
    # Averages of 1 and -1 with a decay of 0.5: -0.25 and 0.75 of 1 once put right; of the squares 1.
    assert steps([1, -1], optimiser=name, betas=(0.5, 0.5))[1] == pytest.approx(0.9 + 0.1 / 3)


def test_rmsprop_divides_by_the_root_of_the_mean_square() -> None:
    # 1% of the square is in the mean: the first step is ten times the rate.
    assert steps([1], optimiser="rmsprop") == pytest.approx([0.0], abs=1e-6)


def test_weight_decay_is_the_weight_s_own_with_adamw_alone() -> None:
    assert steps([0], optimiser="adamw", weight_decay=0.5) == pytest.approx([0.95])
    # A part of the gradient: Adam makes one of any size the rate.
    assert steps([0], optimiser="adam", weight_decay=0.5) == pytest.approx([0.9])
    assert steps([0], optimiser="sgd", weight_decay=0.5) == pytest.approx([1 - 0.1 * 0.5 * 1.9])
    assert steps([0], optimiser="rmsprop", weight_decay=0.5) == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize("decayed", ["all", "kernels"])
def test_kernels_alone_are_decayed_where_the_recipe_says_so(decayed: str) -> None:
    network = UNet(tiny_recipe().network, 1, 3)
    for weight in network.parameters():
        nn.init.ones_(weight)
        weight.grad = torch.zeros_like(weight)
    optimiser = build_optimiser(network, TrainingConfig.model_validate({"weight_decay": 0.5, "decayed": decayed}))
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    optimiser.step()
    for name, weight in network.named_parameters():
        shrinks = decayed == "all" or weight.ndim > 1
        assert float(weight.detach().mean()) == pytest.approx(0.95 if shrinks else 1.0), name
    assert any(weight.ndim == 1 for weight in network.parameters())


def silent(*_: Any) -> None:
    pass


def gradient(cases: list[TrainingCase], folder: Path, **training: Any) -> tuple[float, list[Tensor]]:
    recipe = tiny_recipe(window=[8, 8, 8], training={"gradient_clip": 1e9, **training})
    trainer = loop.Trainer(recipe, cases, [], folder, silent)
    trainer.precision = "fp32"
    value = trainer.step(0, 10)
    return value, [weight.grad.clone() for weight in trainer.network.parameters() if weight.grad is not None]


@pytest.fixture
def cases() -> list[TrainingCase]:
    made = []
    for seed in range(3):
        image, labels = blob_case(seed)
        made.append(as_case(torch.from_numpy(labels), torch.from_numpy((image - 100) / 80)))
    return made


def test_batches_that_are_added_up_have_the_gradient_of_the_larger_batch(
    cases: list[TrainingCase], tmp_path: Path
) -> None:
    loss = [{"kind": "dice", "over": "sample"}, {"kind": "cross_entropy"}]
    together = gradient(cases, tmp_path, batch_size=6, loss=loss)
    for size, count in ((3, 2), (2, 3), (1, 6)):
        value, parts = gradient(cases, tmp_path, batch_size=size, accumulated_batches=count, loss=loss)
        assert value == pytest.approx(together[0], abs=1e-6)
        for part, whole in zip(parts, together[1], strict=True):
            torch.testing.assert_close(part, whole, atol=2e-6, rtol=1e-4)
    assert gradient(cases, tmp_path, batch_size=3, loss=loss)[0] != pytest.approx(together[0], abs=1e-4)


def test_the_gradient_s_norm_is_clipped(cases: list[TrainingCase], tmp_path: Path) -> None:
    def norm(limit: float) -> float:
        _, parts = gradient(cases, tmp_path, gradient_clip=limit)
        return float(torch.cat([part.flatten() for part in parts]).norm())

    free = norm(1e9)
    assert norm(free / 4) == pytest.approx(free / 4, rel=1e-3)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "muon"])
def test_each_optimiser_trains(
    name: str, cases: list[TrainingCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 0.05 if name == "sgd" else 0.005
    off = {
        f"{kind}_probability": 0.0
        for kind in ("rotation", "scaling", "noise", "blur", "brightness", "contrast", "gamma")
    }
    recipe = tiny_recipe(
        window=[8, 8, 8],
        training={
            "optimiser": name, "learning_rate": rate, "batch_size": 4, "augmentation": off, "warmup_fraction": 0.0,
            "foreground_fraction": 1.0, "loss": [{"kind": "cross_entropy"}],
        },
    )  # fmt: skip
    trainer = loop.Trainer(recipe, cases, [], tmp_path, silent)
    trainer.precision = "fp32"
    batch = trainer.batch(0)
    monkeypatch.setattr(trainer, "batch", lambda _: batch)
    values = [trainer.step(step, 30) for step in range(30)]
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
