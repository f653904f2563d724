"""Muon: steps of kernels in which every direction is as long as any other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: Newton-Schulz iterations, and the coefficients of each (Jordan et al., kellerjordan.github.io/posts/muon, 2024):
#: singular values above 0.01 of the norm come to lie between 0.7 and 1.2.
ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
#: Root mean square of an update over the learning rate, about that of AdamW (Liu et al., arXiv:2502.16982, eq. 4).
LIKE_ADAM = 0.2
TINY = 1e-12


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix (m, n) whose singular values are all about 1: its own singular vectors stay.

    The iterations are polynomials of ``M M^T``, so they run on that, m x m and in float64, and the long rows are
    multiplied twice instead of fifteen times. Apple's GPUs have no float64, and take float32.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    a, b, c = COEFFICIENTS
    scaled = matrix / (matrix.norm() + TINY)
    gram = (scaled @ scaled.T).to(torch.float32 if matrix.device.type == "mps" else torch.float64)
    one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    product = one
    for _ in range(ITERATIONS):
        factor = a * one + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    result: Tensor = product.to(matrix.dtype) @ scaled
    return result


class Muon(Optimizer):
    """Momentum whose step is orthogonalised, for kernels; AdamW for the weights of groups with ``adam``.

    A kernel is a matrix with one row for each of its first axis: those of a convolution are its outputs. A step learns
    rare directions as fast as frequent ones, where AdamW and SGD follow the few that dominate the gradient.

    Parameters
    ----------
    groups
        Weights, with ``weight_decay`` and ``adam``.
    lr
        Learning rate of both; AdamW's is a good one (the updates are about as large).
    momentum
        Decay of the gradients' average.
    betas, eps
        Betas and epsilon of AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": 0.0, "adam": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every weight that has a gradient."""
        del closure
        for group in self.param_groups:
            update = self._adam if group["adam"] else self._orthogonal
            for weight in group["params"]:
                if weight.grad is not None:
                    change = update(weight.grad, self.state[weight], group)
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=group["lr"])

    @staticmethod
    def _orthogonal(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Nesterov's momentum, orthogonalised, and as large as AdamW's step whatever the kernel's shape."""
        average = state.setdefault("average", torch.zeros_like(gradient))
        average.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"])
        matrix = ahead.reshape(len(ahead), -1)
        return orthogonalised(matrix).reshape(ahead.shape) * (LIKE_ADAM * math.sqrt(max(matrix.shape)))

    @staticmethod
    def _adam(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Kingma & Ba, arXiv:1412.6980, algorithm 1."""
        state["step"] = step = state.get("step", 0) + 1
        first, second = group["betas"]
        mean = state.setdefault("mean", torch.zeros_like(gradient)).lerp_(gradient, 1 - first)
        square = state.setdefault("square", torch.zeros_like(gradient)).lerp_(gradient**2, 1 - second)
        change: Tensor = mean / (1 - first**step) / ((square / (1 - second**step)).sqrt() + group["eps"])
        return change
