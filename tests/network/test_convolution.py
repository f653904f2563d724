"""The fast way of one small window against torch's own convolution in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from volseg.network import convolution
from volseg.network.convolution import Convolution

CASES = [
    # channels, sizes, kernel, stride, bias
    ((2, 3), (6, 5, 7), (3, 3, 3), (1, 1, 1), True),
    ((3, 2), (5, 4, 3), (3, 3, 3), (1, 1, 1), False),
    ((1, 4), (7, 6, 5), (5, 3, 1), (1, 1, 1), True),
    ((2, 2), (4, 6, 8), (1, 3, 3), (1, 2, 2), True),
    ((2, 3), (8, 6, 4), (3, 3, 3), (2, 2, 2), False),
    ((2, 3), (7, 6, 4), (3, 3, 3), (2, 2, 2), True),
    ((2, 3), (6, 9, 4), (3, 3, 3), (2, 1, 2), True),
    ((2, 3), (1, 3, 3), (3, 3, 3), (1, 1, 1), True),
    ((2, 3), (9, 3, 3), (3, 3, 3), (3, 1, 1), True),
]


def layer(case: Any) -> tuple[Convolution, Tensor]:
    channels, sizes, kernel, stride, bias = case
    torch.manual_seed(0)
    made = Convolution(channels[0], channels[1], kernel, stride, bias=bias)
    return made, torch.randn(1, channels[0], *sizes)


def exact(made: Convolution, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Result and gradients of all weights and of the input, of a loss that weighs each voxel otherwise."""
    leaves = [part.detach().double().requires_grad_() for part in (x, *made.parameters())]
    bias = leaves[2] if made.bias is not None else None
    y = functional.conv3d(leaves[0], leaves[1], bias, made.stride, made.padding)
    return y.detach(), list(torch.autograd.grad((y * torch.arange(y.numel()).reshape(y.shape).sin()).sum(), leaves))


@pytest.mark.parametrize("case", CASES)
def test_one_window_in_training(case: Any) -> None:
    made, x = layer(case)
    assert made._slow(x)
    wanted, gradients = exact(made, x)
    x.requires_grad_()
    y = made(x)
    torch.testing.assert_close(y.double(), wanted, atol=1e-5, rtol=1e-5)
    found = torch.autograd.grad((y * torch.arange(y.numel()).reshape(y.shape).sin()).sum(), [x, *made.parameters()])
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_one_window_in_prediction(case: Any) -> None:
    made, x = layer(case)
    wanted, _ = exact(made, x)
    with torch.no_grad():
        torch.testing.assert_close(made(x).double(), wanted, atol=1e-5, rtol=1e-5)


def test_what_torch_does_well_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(CASES[0])
    monkeypatch.setattr(Convolution, "_halves", lambda *_: pytest.fail("not asked for"))
    made(torch.cat([x, x]))
    made.double()(x.double())
    made.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == torch.bfloat16
    monkeypatch.setattr(convolution, "SMALL", x[0, ..., 0].numel() - 1)
    made(x)
