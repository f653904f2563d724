"""Group normalisation whose gradient is fast where channels lie last in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _rows(x_BCDHW: Tensor) -> Tensor:
    """(B, voxels, C) of a tensor; no copy where its channels lie last in memory."""
    return x_BCDHW.permute(0, 2, 3, 4, 1).reshape(x_BCDHW.shape[0], -1, x_BCDHW.shape[1])


class _Normalise(torch.autograd.Function):
    """torch's forward pass, and a backward pass in column sums and one linear map of each channel.

    With x^ = (x - mean) / std, y = weight x^ + bias and g the gradient of y, that of x is ``(weight g - mean(weight g)
    - x^ mean(weight g x^)) / std``, means over a group (Ioffe & Szegedy, arXiv:1502.03167, section 3, where the group
    is a batch). torch's own CPU kernel takes three times as long on such memory. Half precision is summed in single.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, epsilon: float) -> Tensor:
        batch, channels = x.shape[:2]
        voxels = x[0, 0].numel()
        y: Tensor
        y, mean, inverse_std = torch.native_group_norm(x, weight, bias, batch, channels, voxels, groups, epsilon)
        ctx.save_for_backward(x, weight, mean, inverse_std)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        g, rows = (_rows(each).to(mean.dtype) for each in (gradient, x))
        batch, voxels, channels = rows.shape
        each = channels // mean.shape[1]
        mean, inverse = (stat.repeat_interleave(each, 1) for stat in (mean, inverse_std))
        bias_gradient = g.sum(1)
        weight_gradient = ((g * rows).sum(1) - mean * bias_gradient) * inverse
        scale = inverse if weight is None else weight * inverse

        def group_mean(sums: Tensor) -> Tensor:
            weighed = sums if weight is None else weight * sums
            total: Tensor = weighed.reshape(batch, -1, each).sum(2) / (voxels * each)
            spread: Tensor = total.repeat_interleave(each, 1)
            return spread

        by_x = -(inverse**2) * group_mean(weight_gradient)
        rest = -inverse * group_mean(bias_gradient) - by_x * mean
        result = torch.addcmul(rest[:, None], g, scale[:, None]).addcmul_(rows, by_x[:, None])
        result = result.to(x.dtype).reshape(batch, *x.shape[2:], channels).permute(0, 4, 1, 2, 3)
        if weight is None:
            return result, None, None, None, None
        return result, weight_gradient.sum(0), bias_gradient.sum(0), None, None


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` of (B, C, D, H, W): the same numbers and weights, trained faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise each group of channels."""
        last = input.device.type == "cpu" and input.is_contiguous(memory_format=torch.channels_last_3d)
        if not (last and torch.is_grad_enabled()):
            return super().forward(input)
        result: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.num_groups, self.eps
        )
        return result
