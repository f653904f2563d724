"""The network's last layer, a 1x1x1 convolution, on averaged features instead of on every window.

It is linear, and so are the weighted mean over windows, mirrored passes and folds, and the way to another grid: logits
of averaged features are the averaged logits. Where a network has fewer features than outputs, windows are summed in
their features: of 16 features and 118 outputs that is a seventh of the memory and of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from volseg.config import Recipe

#: Voxels whose logits are made at once.
ROWS = 2048


@dataclass(frozen=True)
class Head:
    """Logits of features.

    Attributes
    ----------
    weight
        (features, outputs) matrix.
    bias
        (outputs,) vector.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(..., features) to (..., outputs)."""
        flat = features.reshape(-1, len(self.weight))
        # numpy asks the system for large pages, and so many rows at once stay in the cache between the two passes over
        # them (bias, product): four times as fast as one call.
        logits = torch.from_numpy(np.empty((len(flat), len(self.bias)), np.float32))
        for start in range(0, len(flat), ROWS):
            part = slice(start, start + ROWS)
            torch.addmm(self.bias, flat[part], self.weight, out=logits[part])
        return logits.view(*features.shape[:-1], -1)

    @classmethod
    def of(cls, layer: nn.Module) -> Head:
        """The head that a 1x1x1 convolution with a bias is."""
        weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
        return cls(weight.flatten(1).t().contiguous(), bias.clone())


def leaves_head(recipe: Recipe, folds: int) -> bool:
    """Whether the features of so many folds are fewer than the outputs, and the head is left for the end."""
    return recipe.network.features[0] * folds < recipe.outputs


def joined(heads: Sequence[Head]) -> Head:
    """Mean of the logits of several heads, on their features side by side."""
    weight = torch.cat([head.weight for head in heads]) / len(heads)
    return Head(weight, torch.stack([head.bias for head in heads]).mean(0))
