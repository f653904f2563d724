"""Dice + cross-entropy over the supervised outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from volseg.config import Recipe


class SegmentationLoss(nn.Module):
    """Weighted sum over the outputs of deep supervision, each half as heavy as the one above it.

    Dice is over the foreground classes of the whole batch (softmax) or over the regions (sigmoid); cross-entropy is
    binary with sigmoid.

    Parameters
    ----------
    recipe
        Output, labels and the weights of the two terms.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        exclusive = recipe.output == "softmax"
        self.dice = DiceLoss(softmax=exclusive, sigmoid=not exclusive, include_background=not exclusive, batch=True)

    def term(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of one output, both (B, outputs, D, H, W)."""
        # Not MONAI's DiceCELoss: with several outputs its cross-entropy is that of exclusive classes, also of regions.
        exclusive = self.recipe.output == "softmax"
        cross_entropy = functional.cross_entropy if exclusive else functional.binary_cross_entropy_with_logits
        config = self.recipe.training
        dice: Tensor = self.dice(logits, target)
        return config.dice_weight * dice + config.cross_entropy_weight * cross_entropy(logits, target)

    def target(self, labels_BCDHW: Tensor) -> Tensor:
        """(B, outputs, D, H, W) float: one map a class or region, from (B, 1, D, H, W) label values."""
        if self.recipe.output == "softmax":
            groups: list[tuple[int, ...]] = [(0,), *((label.value,) for label in self.recipe.labels)]
        else:
            groups = [label.members or (label.value,) for label in self.recipe.labels]
        maps = [torch.isin(labels_BCDHW, torch.tensor(group, dtype=labels_BCDHW.dtype)) for group in groups]
        return torch.cat(maps, dim=1).float()

    def forward(self, outputs: Sequence[Tensor], labels_BCDHW: Tensor) -> Tensor:
        """Loss of the supervised outputs, full resolution first.

        Labels are brought to a lower stage by the share of each class in a voxel.
        """
        target = self.target(labels_BCDHW)
        total = torch.zeros(())
        weights = [0.5**level for level in range(len(outputs))]
        for weight, logits in zip(weights, outputs, strict=True):
            size = (logits.shape[2], logits.shape[3], logits.shape[4])
            goal = target if target.shape[2:] == size else functional.adaptive_avg_pool3d(target, size)
            total = total + weight / sum(weights) * self.term(logits.float(), goal)
        return total
