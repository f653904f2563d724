"""Muon against singular values, against its iterations written out, and against torch's AdamW."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny import tiny_recipe
from volseg.config import TrainingConfig
from volseg.network.unet import UNet
from volseg.training.muon import Muon, orthogonalised
from volseg.training.optimiser import build_optimiser


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (7, 7)])
def test_singular_vectors_stay_and_singular_values_come_near_1(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalised(matrix) @ v.T
    values = inside.diagonal()
    assert float((inside - values.diag()).abs().max()) < 1e-5
    assert float(values.min()) > 0.65
    assert float(values.max()) < 1.25


def test_it_is_five_newton_schulz_iterations() -> None:
    matrix = random(4, 9)
    x = (matrix / matrix.norm()).double()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    torch.testing.assert_close(orthogonalised(matrix).double(), x, atol=1e-5, rtol=0)


def test_no_gradient_is_no_step() -> None:
    assert torch.equal(orthogonalised(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_kernel_s_step_by_hand() -> None:
    kernel = nn.Parameter(torch.ones(2, 2, 1, 1, 3))
    optimiser = Muon([{"params": [kernel], "weight_decay": 0.5}], lr=0.1, momentum=0.75)
    gradients = [random(2, 2, 1, 1, 3), random(2, 3, 2).reshape(2, 2, 1, 1, 3).flip(0)]
    expected, average = torch.ones(2, 6), torch.zeros(2, 6)
    for gradient in gradients:
        kernel.grad = gradient.clone()
        optimiser.step()
        rows = gradient.reshape(2, 6)
        average = 0.75 * average + 0.25 * rows
        ahead = 0.25 * rows + 0.75 * average
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(6) * orthogonalised(ahead)
        torch.testing.assert_close(kernel.detach().reshape(2, 6), expected)
    assert kernel.grad is not None
    assert torch.equal(kernel.grad, gradients[-1])


def test_a_step_is_as_large_as_adamw_s_whatever_the_shape() -> None:
    for shape in ((8, 8, 3, 3, 3), (64, 2, 1, 1, 1), (4, 96, 3, 3, 3)):
        kernel = nn.Parameter(torch.zeros(shape))
        kernel.grad = random(*shape)
        Muon([{"params": [kernel]}], lr=1.0).step()
        rows = min(shape[0], math.prod(shape[1:]))
        wide = math.sqrt(rows * max(shape[0], math.prod(shape[1:])) / kernel.numel())
        assert float(kernel.detach().pow(2).mean().sqrt()) == pytest.approx(0.2 * wide, rel=0.3)


def test_the_other_weights_are_adamw_s() -> None:
    ours, theirs = (nn.Parameter(random(7)) for _ in range(2))
    muon = Muon([{"params": [ours], "weight_decay": 0.1, "adam": True}], lr=0.01, betas=(0.8, 0.95))
    adamw = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, betas=(0.8, 0.95))
    for number in range(5):
        for weight, optimiser in ((ours, muon), (theirs, adamw)):
            weight.grad = random(7) * number
            optimiser.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def updated(optimiser: str) -> dict[str, Tensor]:
    """What one step adds to each weight of a network of ones, all gradients being the same random numbers."""
    network = UNet(tiny_recipe().network, 1, 3)
    for weight in network.parameters():
        nn.init.zeros_(weight)
        weight.grad = random(*weight.shape)
    built = build_optimiser(network, TrainingConfig.model_validate({"optimiser": optimiser, "momentum": 0.95}))
    for group in built.param_groups:
        group["lr"] = 0.1
    built.step()
    return {name: weight.detach() for name, weight in network.named_parameters()}


def test_kernels_of_hidden_layers_are_orthogonalised_and_no_others() -> None:
    muon, adamw = updated("muon"), updated("adamw")
    same = {name for name, change in muon.items() if torch.allclose(change, adamw[name])}
    assert same == {name for name, change in muon.items() if change.ndim == 1 or name.startswith("outputs.")}
    assert 0 < len(same) < len(muon)


def test_a_state_that_is_saved_goes_on_alike() -> None:
    def run(steps: range, kept: dict[str, Any] | None, weights: list[nn.Parameter]) -> dict[str, Any]:
        groups: list[dict[str, Any]] = [{"params": weights[:1]}, {"params": weights[1:], "adam": True}]
        optimiser = Muon(groups, lr=0.1)
        if kept is not None:
            optimiser.load_state_dict(kept)
        for number in steps:
            for weight in weights:
                weight.grad = random(*weight.shape) + number
            optimiser.step()
        return optimiser.state_dict()

    whole = [nn.Parameter(random(3, 4, 1, 1, 1)), nn.Parameter(random(5))]
    parts = [nn.Parameter(weight.detach().clone()) for weight in whole]
    run(range(4), None, whole)
    run(range(2, 4), run(range(2), None, parts), parts)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
