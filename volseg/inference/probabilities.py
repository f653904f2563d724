"""How logits become probabilities and entropy, and what bounds of the logits say of them.

Arrays have the classes last, as in `volseg.inference.decide`. Logits that lie between the smallest and the largest of a
block's input, as interpolated ones do, have probabilities between what these allow; where both ends are written as the
same number, nothing needs to be worked out.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from volseg.config import Recipe

#: Classes that all together can't reach this probability anywhere in a block are left out of its arithmetic.
NEGLECTED = 1e-6


class Output(Protocol):
    """How logits become probabilities."""

    def largest_entropy(self, outputs: int) -> float:
        """Bits that the entropy of so many outputs may have."""

    def between(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) float64 bounds of the probabilities where the logits lie between `low` and `high`."""

    def entropy_below(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(...) bits that the entropy can't exceed where the probabilities lie between these bounds."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """(..., C) probabilities."""

    def entropy(self, logits: Tensor) -> Tensor:
        """(...) bits."""

    def of_winner(self, logits: Tensor, index: Tensor) -> Tensor:
        """(n,) probability of what won, from (n, C) logits and the index that `volseg.inference.decide` picks."""


def _binary_entropy(p: Tensor) -> Tensor:
    bits: Tensor = (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)
    return bits


def _log_sum_of_others(logits: Tensor) -> Tensor:
    """(..., C) logarithm of the sum of the exponentials of all logits but each one itself.

    Of the largest it is summed without it: to subtract it from the sum of all would leave nothing of far smaller ones.
    """
    largest, top = logits.max(-1, keepdim=True)
    shares = (logits - largest).exp()
    others = largest + (shares.sum(-1, keepdim=True) - shares).log()
    return others.scatter(-1, top, logits.scatter(-1, top, -math.inf).logsumexp(-1, keepdim=True))


class SoftmaxOutput:
    """Exclusive classes, the background among them."""

    def largest_entropy(self, outputs: int) -> float:
        """All classes alike."""
        return math.log2(outputs)

    def between(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """A class is least probable where it is at its lowest and all others are at their highest, and the reverse."""
        low, high = low.double(), high.double()
        return (low - _log_sum_of_others(high)).sigmoid(), (high - _log_sum_of_others(low)).sigmoid()

    def entropy_below(self, lower: Tensor, upper: Tensor) -> Tensor:  # noqa: ARG002 (regions need both)
        """Fano's inequality: what isn't the most probable class is spread evenly over all others."""
        rest = (1 - lower.amax(-1)).clamp(0, 1)
        bits = _binary_entropy(rest) + rest * math.log2(max(lower.shape[-1] - 1, 1))
        return torch.where(rest < 0.5, bits, math.inf)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return logits.softmax(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """Of the distribution over the classes."""
        log_p = logits.log_softmax(-1)
        return -(log_p * log_p.exp()).sum(-1) / math.log(2)

    def of_winner(self, logits: Tensor, index: Tensor) -> Tensor:  # noqa: ARG002 (it is the largest)
        """Probability of the largest logit."""
        return 1 / (logits - logits.amax(-1, keepdim=True)).exp().sum(-1)


class SigmoidOutput:
    """Regions, each there or not, whatever the others are."""

    def largest_entropy(self, outputs: int) -> float:
        """Every region undecided."""
        return float(outputs)

    def between(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The function ascends."""
        return low.double().sigmoid(), high.double().sigmoid()

    def entropy_below(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Each region as near to undecided as it can be."""
        return _binary_entropy(torch.full_like(lower, 0.5).clamp(lower, upper)).sum(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum over the regions."""
        return _binary_entropy(logits.sigmoid()).sum(-1)

    def of_winner(self, logits: Tensor, index: Tensor) -> Tensor:
        """Regions count from 1."""
        return logits.gather(-1, index[:, None] - 1)[:, 0].sigmoid()


def output_of(recipe: Recipe) -> Output:
    """As the recipe says."""
    return SoftmaxOutput() if recipe.output == "softmax" else SigmoidOutput()


def matter(upper: Tensor) -> Tensor:
    """(..., C) which classes to work out where none exceeds `upper`: the others can't reach `NEGLECTED` together."""
    ascending, order = upper.sort(-1)
    return torch.zeros_like(upper, dtype=torch.bool).scatter(-1, order, ascending.cumsum(-1) > NEGLECTED)
