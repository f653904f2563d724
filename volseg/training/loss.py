"""The recipe's loss: a weighted sum of terms, over the outputs of deep supervision.

In formulas p is a class's probability, t its share of a voxel (0 or 1 at full resolution), and sums run over voxels.
An ignored voxel has no class: its t are all 0, and it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.config import CrossEntropyTerm, FocalTerm, LossTerm, OverlapTerm, Recipe, TverskyTerm
from volseg.training.boundary import boundary_share

#: Added above and below the fraction of an overlap loss, as nnU-Net does: an absent class that isn't marked costs 0.
SMOOTH = 1e-5
#: A sum of weights that is divided by is at least this: a patch may hold ignored voxels alone.
TINY = 1e-8
SPACE = (2, 3, 4)


@dataclass(frozen=True)
class Level:
    """One supervised output and what it should have been.

    Attributes
    ----------
    log_p, log_q, p
        (B, outputs, D, H, W) logarithms of p and of 1 - p (the latter for a sigmoid alone), and p.
    target
        (B, outputs, D, H, W) t.
    valid
        (B, 1, D, H, W) share of a voxel that isn't ignored; None: all of it.
    weight
        (B, 1, D, H, W) weight of a voxel in cross-entropy; 0 where it is ignored, None: 1.
    """

    log_p: Tensor
    log_q: Tensor | None
    p: Tensor
    target: Tensor
    valid: Tensor | None
    weight: Tensor | None


def shrunk(map_BCDHW: Tensor, size: Sequence[int]) -> Tensor:
    """Mean of the voxels that each of `size` covers."""
    same = tuple(map_BCDHW.shape[2:]) == tuple(size)
    return map_BCDHW if same else functional.adaptive_avg_pool3d(map_BCDHW, (size[0], size[1], size[2]))


class SegmentationLoss(nn.Module):
    """What the recipe's `training` says of the loss.

    Parameters
    ----------
    recipe
        Output, labels, terms and weights.
    """

    classes: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.exclusive = recipe.training, recipe.output == "softmax"
        self.spacing_mm = recipe.spacing_mm or (1.0, 1.0, 1.0)
        values = [label.members or (label.value,) for label in recipe.labels]
        self.groups = [(0,), *values] if self.exclusive else values
        weights = self.config.class_weights or (1.0,) * recipe.outputs
        self.register_buffer("classes", torch.tensor(weights), persistent=False)

    def target(self, labels_BCDHW: Tensor) -> Tensor:
        """(B, outputs, D, H, W) float: one map a class or region, from (B, 1, D, H, W) label values."""
        maps = [torch.isin(labels_BCDHW, labels_BCDHW.new_tensor(group)) for group in self.groups]
        return torch.cat(maps, dim=1).float()

    def forward(self, outputs: Sequence[Tensor], labels_BCDHW: Tensor) -> Tensor:
        """Loss of the supervised outputs, full resolution first, each (B, outputs, D, H, W).

        Labels are brought to a lower stage by the share of each class in a voxel.
        """
        target, valid, weight = self.target(labels_BCDHW), None, None
        if self.config.ignored_label is not None:
            weight = valid = (labels_BCDHW != self.config.ignored_label).float()
        if self.config.boundary_weight:
            sigma_mm, ignored = self.config.boundary_sigma_mm, self.config.ignored_label
            near = boundary_share(labels_BCDHW, self.spacing_mm, sigma_mm, ignored)
            weight = (1 + self.config.boundary_weight * near) * (1 if valid is None else valid)
        shares = self.config.deep_supervision_weights or tuple(0.5**level for level in range(len(outputs)))
        total = torch.zeros((), device=target.device)
        for share, logits in zip(shares, outputs, strict=True):
            level = self._level(logits.float(), target, valid, weight)
            for term in self.config.loss:
                total = total + share / sum(shares) * term.weight * self._term(term, level)
        return total

    def _level(self, logits: Tensor, target: Tensor, valid: Tensor | None, weight: Tensor | None) -> Level:
        size = logits.shape[2:]
        maps = (
            shrunk(target, size),
            None if valid is None else shrunk(valid, size),
            None if weight is None else shrunk(weight, size),
        )
        if self.exclusive:
            log_p = logits.log_softmax(1)
            return Level(log_p, None, log_p.exp(), *maps)
        return Level(functional.logsigmoid(logits), functional.logsigmoid(-logits), logits.sigmoid(), *maps)

    def _term(self, term: LossTerm, level: Level) -> Tensor:
        match term:
            case CrossEntropyTerm():
                return cross_entropy(level, self.classes)
            case FocalTerm():
                return cross_entropy(level, self.classes, term.gamma)
            case OverlapTerm() | TverskyTerm():
                return overlap(term, level, self.classes, int(self.exclusive and not term.background))


def cross_entropy(level: Level, classes: Tensor, gamma: float = 0.0) -> Tensor:
    """Mean of ``-(1 - p)^gamma t log p`` over voxels, weighted by voxel and class; of a sigmoid over regions too.

    With gamma it is the focal loss (Lin et al., arXiv:1708.02002, eq. 4 and 5). Of a sigmoid, ``-p^gamma (1 - t)
    log(1 - p)`` is added: each region against the rest. As in torch, the mean is divided by the sum of the weights.
    """
    by_class = classes[:, None, None, None].expand_as(level.p)
    if level.weight is not None:
        by_class = by_class * level.weight
    hit = level.log_p * level.target
    if gamma:
        hit = hit * (1 - level.p).clamp(min=0) ** gamma
    if level.log_q is None:
        return -(by_class * hit).sum() / (by_class * level.target).sum().clamp(min=TINY)
    miss = level.log_q * (1 - level.target)
    if gamma:
        miss = miss * level.p**gamma
    return -(by_class * (hit + miss)).sum() / by_class.sum().clamp(min=TINY)


def overlap(term: OverlapTerm | TverskyTerm, level: Level, classes: Tensor, first: int = 0) -> Tensor:
    """Loss of overlap of the outputs from `first` on, weighted by class; of patches, the mean of theirs.

    With ``I = sum p t``, ``P = sum p`` and ``T = sum t``: Dice ``1 - 2 I / (P + T)``, of each class (Milletari et al.,
    arXiv:1606.04797, without the squares); generalised Dice ``1 - 2 (sum_c w I) / (sum_c w (P + T))``, ``w = 1 / T^2``
    (Sudre et al., arXiv:1707.03237), an absent class weighing as the heaviest present one; Tversky ``1 - I / (I +
    a (P - I) + b (T - I))`` (Salehi et al., arXiv:1706.05721).
    """
    axes = (0, *SPACE) if term.over == "batch" else SPACE
    p, t = level.p[:, first:], level.target[:, first:]
    if level.valid is not None:
        p = p * level.valid
    both, marked, real = (each.sum(axes).reshape(-1, p.shape[1]) for each in (p * t, p, t))
    weights = classes[first:]
    if term.kind == "generalised_dice":
        volume = real / real.sum(1, keepdim=True).clamp(min=TINY)
        inverse = torch.where(volume > 0, volume, torch.inf).pow(-2)
        heaviest = inverse.amax(1, keepdim=True)
        inverse = torch.where(volume > 0, inverse, torch.where(heaviest > 0, heaviest, 1.0)) * weights
        losses = 1 - (2 * (inverse * both).sum(1) + SMOOTH) / ((inverse * (marked + real)).sum(1) + SMOOTH)
        return losses.mean()
    if isinstance(term, TverskyTerm):
        wrong = term.false_positives * (marked - both) + term.false_negatives * (real - both)
        losses = 1 - (both + SMOOTH) / (both + wrong + SMOOTH)
    else:
        losses = 1 - (2 * both + SMOOTH) / (marked + real + SMOOTH)
    return (losses * weights).sum(1).mean() / weights.sum().clamp(min=TINY)
