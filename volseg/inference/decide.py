"""Labels of a few rows of a scan from logits on the model's grid, without resizing all of the logits.

Arrays here are (R, H, W, C): rows along the streaming axis, the other two axes, and the classes last, as networks that
run channels last give them; restoring an axis is then one matrix product on its left.

Linear interpolation is a convex combination, and so is taking the nearest value. Inside a block of the output a class
whose largest input is below another class's smallest input can't win anywhere: it is dropped before any arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.errors import ModelError
from volseg.geometry import Scalar
from volseg.resample import axis_operator

#: Voxels along each axis of a block, on the finer of the two grids.
BLOCK = 16

Labels = npt.NDArray[np.unsignedinteger]
Packed = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Axis:
    """One axis of the way from the model's grid to the source's.

    Attributes
    ----------
    operator
        (source, model) float32 matrix, or None where the sizes are equal and nothing is to be done.
    blocks
        Blocks of the output: the voxels of each, and the voxels of the model's grid that it needs. Both ascend.
    size_in, size_out
        Voxels on the model's and on the source's grid.
    """

    operator: Tensor | None
    blocks: tuple[tuple[slice, slice], ...]
    size_in: int
    size_out: int

    @classmethod
    def between(cls, size_in: int, size_out: int, order: Literal[0, 1] = 1) -> Axis:
        """Axis from `size_in` voxels to `size_out`: linear, or (0) the nearest voxel."""
        return cls.of(axis_operator(size_in, size_out, order), identity=size_in == size_out)

    @classmethod
    def of(cls, operator: Tensor, *, identity: bool) -> Axis:
        """Axis of a (source, model) operator, which is a part of an identity or not."""
        size_out, size_in = operator.shape
        first, last = support(operator)
        # Where the model's grid is the finer one, blocks are smaller: they'd need many rows.
        length = max(1, min(BLOCK, BLOCK * size_out // size_in))
        starts = range(0, size_out, length)
        outs = [slice(start, min(start + length, size_out)) for start in starts]
        blocks = tuple((out, slice(int(first[out].min()), int(last[out].max()))) for out in outs)
        return cls(None if identity else operator.float(), blocks, size_in, size_out)

    def restored(self, values: Tensor, block: tuple[slice, slice], axis: int) -> Tensor:
        """`values` with axis `axis` (0, 1 or 2) brought from the block's input to its output voxels."""
        if self.operator is None:
            return values
        lead, rest = values.shape[:axis], values.shape[axis + 1 :]
        flat = values.reshape(*([-1] if lead else []), values.shape[axis], rest.numel())
        result = self.operator[block] @ flat
        return result.view(*lead, -1, *rest)


def support(operator: Tensor) -> tuple[Tensor, Tensor]:
    """First voxel of the model's grid that each of the source's needs, and the one behind the last; (source,) each."""
    used = operator != 0
    return used.int().argmax(1), operator.shape[1] - used.flip(1).int().argmax(1)


class Decision(Protocol):
    """How logits become a label; an index 0 is the background, others count the recipe's labels from 1."""

    def pick(self, logits: Tensor, classes: Tensor) -> Tensor:
        """(...) index from (..., k) logits of the `classes` (k,) that were kept."""


class Softmax:
    """The largest logit wins; of equal ones, the first.

    Parameters
    ----------
    wanted
        (C,) flags, whether each class's voxels are asked for; all others become background.
    """

    def __init__(self, wanted: Tensor) -> None:
        self.wanted = wanted

    def prune(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which classes matter where their logits lie between `low` and `high`; where none is wanted, none does.

        Parameters
        ----------
        low, high
            (..., C) bounds, all finite.

        Returns
        -------
        tuple
            (..., C): the classes that may be the largest. (...): whether the index is certain, and the index where it
            is.
        """
        kept = high >= low.amax(-1, keepdim=True)
        asked = (kept & self.wanted).any(-1)
        return kept, (kept.sum(-1) == 1) | ~asked, kept.byte().argmax(-1) * asked

    def pick(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Class of the largest logit."""
        # numpy's is several times as fast as torch's, and promises the first of equal ones.
        return classes[torch.from_numpy(logits.numpy().argmax(-1))]


class Sigmoid:
    """Each region is where its logit is above 0; later regions paint over earlier ones.

    Parameters
    ----------
    wanted
        (C,) flags, whether each region is asked for; others aren't painted.
    """

    def __init__(self, wanted: Tensor) -> None:
        self.wanted = wanted

    def prune(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Which regions hold all of a block, and which may hold some of it; parameters as in `Softmax.prune`."""
        whole = (low > 0) & self.wanted
        return whole, (high > 0) & self.wanted & ~whole

    def pick(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Number of the last region that holds the voxel."""
        return ((logits > 0) * (classes + 1)).amax(-1)


def bounds(values_RHWC: Tensor, axes: tuple[Axis, Axis, Axis]) -> tuple[Tensor, Tensor]:
    """Smallest and largest logit that each block of one row of blocks needs: two (H blocks, W blocks, C).

    Raises
    ------
    ModelError
        Logits that are NaN or infinite.
    """
    low, high = values_RHWC[0].clone(), values_RHWC[0].clone()
    for row in values_RHWC[1:]:  # five times faster than torch.aminmax along the first axis
        torch.minimum(low, row, out=low)
        torch.maximum(high, row, out=high)
    for axis in (0, 1):
        needed = [into for _, into in axes[axis + 1].blocks]
        low = torch.stack([low.narrow(axis, i.start, i.stop - i.start).amin(axis) for i in needed], axis)
        high = torch.stack([high.narrow(axis, i.start, i.stop - i.start).amax(axis) for i in needed], axis)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ModelError("the network gives logits that are no finite numbers; --precision fp32 may help")
    return low, high


def block_logits(
    values_RHWC: Tensor, axes: tuple[Axis, Axis, Axis], block: tuple[int, int, int], classes: Tensor
) -> Tensor:
    """(R, H, W, k) logits of some `classes` (k,) on the output voxels of one block; parameters as in `restore_rows`."""
    rows, height, width = axes
    row, h, w = block
    part = values_RHWC[:, height.blocks[h][1], width.blocks[w][1]].index_select(-1, classes)
    # Along W the products are smallest and most numerous: they come first, while there are fewest.
    part = width.restored(part, width.blocks[w], 2)
    part = rows.restored(part, rows.blocks[row], 0)
    return height.restored(part, height.blocks[h], 1)


def restore_rows(
    values_RHWC: Tensor, axes: tuple[Axis, Axis, Axis], row: int, decision: Softmax, table: Labels, target: Labels
) -> None:
    """Decide one row of blocks and write its labels.

    Parameters
    ----------
    values_RHWC
        Logits of the rows that ``axes[0].blocks[row]`` needs, and no others.
    axes
        Axes (rows, H, W) from the model's grid to the target's.
    row
        Index of the block along the rows.
    decision, table
        The rule that makes an index of logits, and the label value of each index.
    target
        (R, H, W) labels of the whole scan; a view will do.
    """
    rows, height, width = axes
    out_rows = target[rows.blocks[row][0]]
    kept, certain, index = decision.prune(*bounds(values_RHWC, axes))
    out_rows[:] = _spread(table[index.numpy()], axes)
    for h, w in (~certain).nonzero().tolist():
        classes = kept[h, w].nonzero().flatten()
        part = block_logits(values_RHWC, axes, (row, h, w), classes)
        out_rows[:, height.blocks[h][0], width.blocks[w][0]] = table[decision.pick(part, classes).numpy()]


def restore_regions(
    values_RHWC: Tensor, axes: tuple[Axis, Axis, Axis], row: int, decision: Sigmoid, target: Packed
) -> None:
    """Decide one row of blocks and write its regions.

    Parameters
    ----------
    values_RHWC, axes, row
        Logits, axes and row, the same as for `restore_rows`.
    decision
        The rule that says where each region is.
    target
        (bytes, R, H, W) of the whole scan, a bit a region: the first is the lowest bit of the first byte.
    """
    rows, height, width = axes
    out_rows = target[:, rows.blocks[row][0]]
    whole, open_ = decision.prune(*bounds(values_RHWC, axes))
    for out, packed in zip(out_rows, _packed(whole), strict=True):
        out[:] = _spread(packed, axes)
    for h, w in open_.any(-1).nonzero().tolist():
        classes = open_[h, w].nonzero().flatten()
        part = block_logits(values_RHWC, axes, (row, h, w), classes)
        inside = whole[h, w].expand(*part.shape[:3], -1).clone()
        inside[..., classes] = part > 0
        out_rows[:, :, height.blocks[h][0], width.blocks[w][0]] = _packed(inside)


def _packed(inside: Tensor) -> Packed:
    """(bytes, ...) of (..., C) booleans."""
    return np.moveaxis(np.packbits(inside.numpy(), axis=-1, bitorder="little"), -1, 0)


def _spread(values_HW: npt.NDArray[Scalar], axes: tuple[Axis, Axis, Axis]) -> npt.NDArray[Scalar]:
    """(H, W) of voxels from one value a block."""
    heights, widths = ([out.stop - out.start for out, _ in axis.blocks] for axis in axes[1:])
    return np.repeat(np.repeat(values_HW, heights, 0), widths, 1)
