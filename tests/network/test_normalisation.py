"""The hand-written gradient against finite differences and against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.network.normalisation import GroupNorm

SHAPE = (2, 6, 3, 4, 2)


def layer(groups: int, *, affine: bool, dtype: torch.dtype = torch.float64) -> GroupNorm:
    torch.manual_seed(0)
    made = GroupNorm(groups, 6, 1e-3, affine).to(dtype)
    if affine:
        nn.init.normal_(made.weight)
        nn.init.normal_(made.bias)
    return made


def scan(memory: torch.memory_format, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(1)
    values = torch.randn(SHAPE, dtype=dtype) * torch.arange(1.0, 7)[:, None, None, None] + 3
    return values.to(dtype).contiguous(memory_format=memory).requires_grad_()


LAST, FIRST = torch.channels_last_3d, torch.contiguous_format


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("memory", [LAST, FIRST])
def test_the_gradient_is_that_of_finite_differences(groups: int, affine: bool, memory: torch.memory_format) -> None:
    made = layer(groups, affine=affine)
    assert torch.autograd.gradcheck(lambda x, *_: made(x), (scan(memory), *made.parameters()))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_are_those_of_torch(groups: int, dtype: torch.dtype) -> None:
    made = layer(groups, affine=True, dtype=dtype)
    x = scan(LAST, dtype)
    inputs = (x, made.weight, made.bias)
    gradient = torch.randn(SHAPE, dtype=dtype)
    expected = functional.group_norm(x, groups, made.weight, made.bias, 1e-3)
    found = made(x)
    assert type(found.grad_fn).__name__ == "_NormaliseBackward"
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=LAST)
    for one, other in zip(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_gradient_with_channels_first_is_fine() -> None:
    made, x = layer(2, affine=True), scan(LAST)
    gradient = torch.randn(SHAPE, dtype=torch.float64)
    (one,) = torch.autograd.grad(made(x), x, gradient)
    (other,) = torch.autograd.grad(made(x), x, gradient.contiguous(memory_format=LAST))
    torch.testing.assert_close(one, other)


def test_under_autocast_it_is_as_exact_as_torch_s() -> None:
    made, x = layer(2, affine=True, dtype=torch.float32), scan(LAST, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = x.bfloat16()
        found, expected = made(half), functional.group_norm(half, 2, made.weight, made.bias, 1e-3)
        assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
    gradient = torch.randn(SHAPE).bfloat16()
    (one,) = torch.autograd.grad(found, x, gradient)
    (other,) = torch.autograd.grad(expected, x, gradient)
    torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)


def test_without_a_gradient_it_is_torch_s() -> None:
    made = layer(2, affine=True)
    with torch.no_grad():
        assert torch.equal(made(scan(LAST)), functional.group_norm(scan(LAST), 2, made.weight, made.bias, 1e-3))
