"""The recipe's loss: a weighted sum of terms, over the outputs of deep supervision.

In formulas p is a class's probability, t its share of a voxel (0 or 1 at full resolution), and sums run over voxels.
An ignored voxel has no class: its t are all 0, and it counts for nothing. Where several processes train, sums and means
are over the patches of all of them, and so each has the same loss, that of all patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.config import CrossEntropyTerm, FocalTerm, LossTerm, OverlapTerm, Recipe, TverskyTerm
from volseg.training.boundary import boundary_share
from volseg.training.processes import ALONE, Processes

#: Added above and below the fraction of an overlap loss, as nnU-Net does: an absent class that isn't marked costs 0.
SMOOTH = 1e-5
#: A sum of weights that is divided by is at least this: a patch may hold ignored voxels alone.
TINY = 1e-8


@dataclass(frozen=True)
class Sums:
    """``I``, ``P`` and ``T`` of each patch and output, (B, K): what overlap losses are made of."""

    both: Tensor
    marked: Tensor
    real: Tensor


@dataclass(frozen=True)
class Hard:
    """One supervised output of exclusive classes where each of its V voxels has one class of K, or none.

    With many classes, maps of each of them would take most of a step: the class's number stands for them.

    Attributes
    ----------
    log_p
        (B, V, K) logarithms of p.
    index
        (B, V) index of the class; K: none.
    valid
        (B, V) share of a voxel that isn't ignored; None: all of it.
    weight
        (B, V) weight of a voxel in cross-entropy; 0 where it is ignored, None: 1.
    """

    log_p: Tensor
    index: Tensor
    valid: Tensor | None
    weight: Tensor | None

    @cached_property
    def log_right(self) -> Tensor:
        """(B, V) log p of the voxel's class; of one without a class that of any."""
        last = self.log_p.shape[2] - 1
        return self.log_p.gather(2, self.index.clamp(max=last)[..., None])[..., 0]

    def hits(self, classes: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """Weighted sum of what cross-entropy, or the focal loss, is the mean of; and the sum of the weights."""
        weight = functional.pad(classes, (0, 1))[self.index]
        if self.weight is not None:
            weight = weight * self.weight
        hit = self.log_right
        if gamma:
            hit = hit * (1 - hit.exp()).clamp(min=0) ** gamma
        return (weight * hit).sum(), weight.sum()

    @cached_property
    def sums(self) -> Sums:
        """See `Sums`."""
        batch, _, outputs = self.log_p.shape
        p_right = self.log_right.exp()
        if p_right.device.type != "mps":
            p_right = p_right.double()  # bins are filled voxel by voxel: of millions, float32 would lose some
        both = p_right.new_zeros(batch, outputs + 1).scatter_add(1, self.index, p_right)[:, :outputs].float()
        apart = torch.arange(batch, device=self.index.device)[:, None] * (outputs + 1)
        counts = torch.bincount((self.index + apart).flatten(), minlength=batch * (outputs + 1))
        p = self.log_p.exp()
        marked = (p if self.valid is None else p * self.valid[..., None]).sum(1)
        return Sums(both, marked, counts.reshape(batch, -1)[:, :outputs].float())


@dataclass(frozen=True)
class Soft:
    """One supervised output of which each voxel has shares of classes, or belongs to several regions.

    Attributes
    ----------
    log_p, log_q
        (B, V, K) logarithms of p and of 1 - p, the latter for a sigmoid alone.
    target
        (B, V, K) target t.
    valid, weight
        The same as in `Hard`.
    """

    log_p: Tensor
    log_q: Tensor | None
    target: Tensor
    valid: Tensor | None
    weight: Tensor | None

    @cached_property
    def p(self) -> Tensor:
        """(B, V, K)."""
        return self.log_p.exp()

    def hits(self, classes: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """Weighted sum of what cross-entropy, or the focal loss, is the mean of; and the sum of the weights."""
        by_class = classes if self.weight is None else classes * self.weight[..., None]
        hit = self.log_p * self.target
        if gamma:
            hit = hit * (1 - self.p).clamp(min=0) ** gamma
        if self.log_q is None:
            return (by_class * hit).sum(), (by_class * self.target).sum()
        miss = self.log_q * (1 - self.target)
        if gamma:
            miss = miss * self.p**gamma
        return (by_class * (hit + miss)).sum(), by_class.expand_as(self.p).sum()

    @cached_property
    def sums(self) -> Sums:
        """See `Sums`."""
        p = self.p if self.valid is None else self.p * self.valid[..., None]
        return Sums((p * self.target).sum(1), p.sum(1), self.target.sum(1))


def shrunk(map_BCDHW: Tensor, size: Sequence[int]) -> Tensor:
    """Mean of the voxels that each of `size` covers."""
    same = tuple(map_BCDHW.shape[2:]) == tuple(size)
    return map_BCDHW if same else functional.adaptive_avg_pool3d(map_BCDHW, (size[0], size[1], size[2]))


def shares(index_BDHW: Tensor, outputs: int, size: Sequence[int]) -> Tensor:
    """(B, outputs, d, h, w) share of each class in the block of voxels that each of `size` covers.

    `size` divides the shape, as windows are multiples of strides. Voxels are counted into their blocks: maps of all
    classes at full resolution are never made.
    """
    blocks = [part for n, small in zip(index_BDHW.shape[1:], size, strict=True) for part in (small, n // small)]
    inside = index_BDHW.reshape(-1, *blocks).permute(0, 2, 4, 6, 1, 3, 5).flatten(1, 3)
    counts = torch.zeros(inside.shape[0], outputs + 1, *size, device=index_BDHW.device)
    one = torch.ones((), device=index_BDHW.device).expand_as(inside)
    return counts.scatter_add_(1, inside, one)[:, :outputs] / inside.shape[1]


def rows(map_BCDHW: Tensor) -> Tensor:
    """(B, V, C), of a map that is channels-last in memory without a copy."""
    return map_BCDHW.flatten(2).transpose(1, 2)


class SegmentationLoss(nn.Module):
    """What the recipe's `training` says of the loss.

    Parameters
    ----------
    recipe
        Recipe, for output, labels, terms and weights.
    processes
        Processes that have a step's patches.
    """

    classes: Tensor
    members: Tensor

    def __init__(self, recipe: Recipe, processes: Processes = ALONE) -> None:
        super().__init__()
        self.processes = processes
        self.config, self.exclusive, self.outputs = recipe.training, recipe.output == "softmax", recipe.outputs
        self.spacing_mm = recipe.spacing_mm or (1.0, 1.0, 1.0)
        values = [label.members or (label.value,) for label in recipe.labels]
        groups = [(0,), *values] if self.exclusive else values
        weights = self.config.class_weights or (1.0,) * recipe.outputs
        self.register_buffer("classes", torch.tensor(weights), persistent=False)
        # A row a label value, a column an output; the last row is of every value that has no output.
        members = torch.zeros(max(map(max, groups)) + 2, len(groups))
        for output, group in enumerate(groups):
            members[list(group), output] = 1
        self.register_buffer("members", members, persistent=False)

    def forward(self, outputs: Sequence[Tensor], labels_BCDHW: Tensor) -> Tensor:
        """Loss of the supervised outputs, full resolution first, each (B, outputs, D, H, W).

        Labels are brought to a lower stage by the share of each class in a voxel.
        """
        valid, weight = None, None
        if self.config.ignored_label is not None:
            weight = valid = (labels_BCDHW != self.config.ignored_label).float()
        if self.config.boundary_weight:
            sigma_mm, ignored = self.config.boundary_sigma_mm, self.config.ignored_label
            near = boundary_share(labels_BCDHW, self.spacing_mm, sigma_mm, ignored)
            weight = (1 + self.config.boundary_weight * near) * (1 if valid is None else valid)
        factors = self.config.deep_supervision_weights or tuple(0.5**level for level in range(len(outputs)))
        target = self._target(labels_BCDHW[:, 0])
        total = torch.zeros((), device=target.device)
        for factor, logits in zip(factors, outputs, strict=True):
            level = self._level(logits.float(), target, valid, weight)
            for term in self.config.loss:
                total = total + factor / sum(factors) * term.weight * self._term(term, level)
        return total

    def _target(self, labels_BDHW: Tensor) -> Tensor:
        """Of exclusive classes (B, D, H, W) the number of each voxel's, else (B, outputs, D, H, W) whether it is in."""
        values = labels_BDHW.long().clamp(max=len(self.members) - 1)
        if self.exclusive:
            number = torch.where(self.members.any(1), self.members.argmax(1), self.outputs)
            return number[values]
        return self.members[values].movedim(-1, 1)

    def _level(self, logits: Tensor, target: Tensor, valid: Tensor | None, weight: Tensor | None) -> Hard | Soft:
        size = logits.shape[2:]
        maps = [None if each is None else rows(shrunk(each, size))[..., 0] for each in (valid, weight)]
        values = rows(logits)
        if not self.exclusive:
            t = rows(shrunk(target, size))
            return Soft(functional.logsigmoid(values), functional.logsigmoid(-values), t, *maps)
        log_p = values.log_softmax(2)
        if target.shape[1:] == size:
            return Hard(log_p, target.flatten(1), *maps)
        return Soft(log_p, None, rows(shares(target, self.outputs, size)), *maps)

    def _term(self, term: LossTerm, level: Hard | Soft) -> Tensor:
        match term:
            case CrossEntropyTerm():
                return cross_entropy(level, self.classes, processes=self.processes)
            case FocalTerm():
                return cross_entropy(level, self.classes, term.gamma, self.processes)
            case OverlapTerm() | TverskyTerm():
                first = int(self.exclusive and not term.background)
                return overlap(term, level.sums, self.classes, first, self.processes)


def cross_entropy(level: Hard | Soft, classes: Tensor, gamma: float = 0.0, processes: Processes = ALONE) -> Tensor:
    """Mean of ``-(1 - p)^gamma t log p`` over voxels, weighted by voxel and class; of a sigmoid over regions too.

    With gamma it is the focal loss (Lin et al., arXiv:1708.02002, eq. 4 and 5). Of a sigmoid, ``-p^gamma (1 - t)
    log(1 - p)`` is added: each region against the rest. As in torch, the mean is divided by the sum of the weights.
    """
    hits, weights = processes.total(torch.stack(level.hits(classes, gamma)))
    mean: Tensor = hits / weights.clamp(min=TINY)
    return -mean


def overlap(
    term: OverlapTerm | TverskyTerm, sums: Sums, classes: Tensor, first: int = 0, processes: Processes = ALONE
) -> Tensor:
    """Loss of overlap of the outputs from `first` on, weighted by class; of patches, the mean of theirs.

    With ``I = sum p t``, ``P = sum p`` and ``T = sum t``: Dice ``1 - 2 I / (P + T)``, of each class (Milletari et al.,
    arXiv:1606.04797, without the squares); generalised Dice ``1 - 2 (sum_c w I) / (sum_c w (P + T))``, ``w = 1 / T^2``
    (Sudre et al., arXiv:1707.03237), an absent class weighing as the heaviest present one; Tversky ``1 - I / (I +
    a (P - I) + b (T - I))`` (Salehi et al., arXiv:1706.05721).
    """
    batch = term.over == "batch"
    each = torch.stack([sums.both, sums.marked, sums.real])[..., first:]
    both, marked, real = processes.total(each.sum(1, keepdim=True)) if batch else each
    losses = _overlap_losses(term, both, marked, real, classes[first:])
    # Of patches, each process has as many.
    return losses.mean() if batch else processes.total(losses.mean()) / processes.count


def _overlap_losses(
    term: OverlapTerm | TverskyTerm, both: Tensor, marked: Tensor, real: Tensor, weights: Tensor
) -> Tensor:
    """(rows,) losses from (rows, classes) sums I, P and T."""
    if term.kind == "generalised_dice":
        volume = real / real.sum(1, keepdim=True).clamp(min=TINY)
        inverse = torch.where(volume > 0, volume, torch.inf).pow(-2)
        heaviest = inverse.amax(1, keepdim=True)
        inverse = torch.where(volume > 0, inverse, torch.where(heaviest > 0, heaviest, 1.0)) * weights
        return 1 - (2 * (inverse * both).sum(1) + SMOOTH) / ((inverse * (marked + real)).sum(1) + SMOOTH)
    if isinstance(term, TverskyTerm):
        wrong = term.false_positives * (marked - both) + term.false_negatives * (real - both)
        losses = 1 - (both + SMOOTH) / (both + wrong + SMOOTH)
    else:
        losses = 1 - (2 * both + SMOOTH) / (marked + real + SMOOTH)
    return (losses * weights).sum(1) / weights.sum().clamp(min=TINY)
