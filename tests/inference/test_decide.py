"""Pruning never changes a label; a block's needs are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from tests.helpers.oracle import resized
from volseg.errors import ModelError
from volseg.inference.decide import BLOCK, Axis, Sigmoid, Softmax, restore_regions, restore_rows


def decide(logits_CDHW: Tensor, axes: tuple[Axis, Axis, Axis], decision: Softmax) -> Tensor:
    """Indices of the whole array, row of blocks by row of blocks."""
    target = np.full([axis.size_out for axis in axes], 99, np.uint8)
    values = logits_CDHW.permute(1, 2, 3, 0).contiguous()
    for row, (_, into) in enumerate(axes[0].blocks):
        restore_rows(values[into], axes, row, decision, np.arange(len(logits_CDHW) + 1, dtype=np.uint8), target)
    return torch.from_numpy(target).long()


def regions(logits_CDHW: Tensor, axes: tuple[Axis, Axis, Axis], wanted: Tensor) -> Tensor:
    """(C, D, H, W) where each region is, row of blocks by row of blocks."""
    classes = len(logits_CDHW)
    target = np.full((-(-classes // 8), *(axis.size_out for axis in axes)), 255, np.uint8)
    values = logits_CDHW.permute(1, 2, 3, 0).contiguous()
    for row, (_, into) in enumerate(axes[0].blocks):
        restore_regions(values[into], axes, row, Sigmoid(wanted), target)
    return torch.from_numpy(np.unpackbits(target, axis=0, count=classes, bitorder="little")).bool()


def all_of(classes: int) -> Tensor:
    return torch.ones(classes, dtype=torch.bool)


sizes = st.tuples(*(st.integers(1, 20),) * 3)


@given(
    old=sizes,
    new=st.tuples(*(st.integers(1, 40),) * 3),
    nearest=st.sampled_from([None, 0, 1, 2]),
    classes=st.integers(1, 10),
    seed=st.integers(0, 99),
    smooth=st.booleans(),
)
def test_pruned_labels_are_those_of_all_logits(
    old: tuple[int, int, int], new: tuple[int, int, int], nearest: int | None, classes: int, seed: int, smooth: bool
) -> None:
    values = np.random.default_rng(seed).normal(size=(classes, *old)).astype(np.float32)
    if smooth:  # one class well ahead in most places, so that blocks are pruned
        values = ndimage.gaussian_filter(values, (0, 2, 2, 2)) * 50
    logits = torch.from_numpy(values)
    d, h, w = (Axis.between(*pair, 0 if axis == nearest else 1) for axis, pair in enumerate(zip(old, new, strict=True)))
    full = resized(logits, new, nearest)
    best = full.sort(0, descending=True).values
    clear = best[0] - best[1] > 1e-5 if classes > 1 else torch.ones(new, dtype=torch.bool)
    assert torch.equal(decide(logits, (d, h, w), Softmax(all_of(classes)))[clear], full.argmax(0)[clear])
    sure = full.abs() > 1e-5
    assert torch.equal(regions(logits, (d, h, w), all_of(classes))[sure], (full > 0)[sure])
    # Some labels alone. An index that isn't wanted is none: the table of values makes it 0.
    wanted = torch.arange(classes) % 2 == 1
    found = decide(logits, (d, h, w), Softmax(wanted))
    assert torch.equal((found * wanted[found])[clear], (full.argmax(0) * wanted[full.argmax(0)])[clear])
    some = wanted[:, None, None, None] & (full > 0)
    assert torch.equal(regions(logits, (d, h, w), wanted)[sure], some[sure])


def test_what_blocks_need_worked_by_hand() -> None:
    # Twice the resolution: output voxel o lies at o / 2 - 1 / 4, between the two voxels around it.
    twice = Axis.between(12, 24)
    assert twice.blocks == ((slice(0, 16), slice(0, 9)), (slice(16, 24), slice(7, 12)))
    # Half: o lies at 2 o + 1 / 2, between 2 o and 2 o + 1; blocks are 8 long, so that they need 16.
    half = Axis.between(24, 12)
    assert half.blocks == ((slice(0, 8), slice(0, 16)), (slice(8, 12), slice(16, 24)))
    same = Axis.between(20, 20)
    assert same.operator is None
    assert same.blocks == ((slice(0, 16), slice(0, 16)), (slice(16, 20), slice(16, 20)))
    third = Axis.between(3, 9, 0)
    assert third.blocks == ((slice(0, 9), slice(0, 3)),)
    assert Axis.between(400, 2).blocks == ((slice(0, 1), slice(99, 101)), (slice(1, 2), slice(299, 301)))


@given(size_in=st.integers(1, 90), size_out=st.integers(1, 90), order=st.sampled_from([0, 1]))
def test_blocks_cover_the_output_and_need_few_rows(size_in: int, size_out: int, order: int) -> None:
    axis = Axis.between(size_in, size_out, 0 if order == 0 else 1)
    covered = [index for out, _ in axis.blocks for index in range(out.start, out.stop)]
    assert covered == list(range(size_out))
    for out, into in axis.blocks:
        assert 0 <= into.start < into.stop <= size_in
        assert into.stop - into.start <= max(BLOCK, size_in / size_out) + 2
        assert axis.operator is None or torch.allclose(
            axis.operator[out, into].sum(1), torch.ones(out.stop - out.start)
        )
    assert all(a[1].start <= b[1].start for a, b in zip(axis.blocks, axis.blocks[1:], strict=False))


def test_pruning_by_hand() -> None:
    low = torch.tensor([[0.0, 2.0, -1.0], [0.0, 0.5, -1.0], [-3.0, -2.0, -1.0]])
    high = torch.tensor([[1.0, 3.0, 1.9], [1.0, 1.0, 0.5], [-1.0, -1.0, -0.5]])
    kept, certain, index = Softmax(all_of(3)).prune(low, high)
    assert kept.tolist() == [[False, True, False], [True, True, True], [True, True, True]]
    assert certain.tolist() == [True, False, False]
    assert index[0] == 1
    # Of the first class alone, the first block needs no arithmetic, and is background.
    _, certain, index = Softmax(torch.tensor([True, False, False])).prune(low + 1, high + 1)
    assert certain.tolist() == [True, False, False]
    assert index[0] == 0
    whole, open_ = Sigmoid(all_of(3)).prune(low, high)
    # Region 2 is everywhere, and the others may be anywhere; nowhere is any region in the last.
    assert whole.tolist() == [[False, True, False], [False, True, False], [False, False, False]]
    assert open_.tolist() == [[True, False, True], [True, False, True], [False, False, False]]
    whole, open_ = Sigmoid(torch.tensor([True, False, False])).prune(low, high)
    assert not whole.any()
    assert open_.tolist() == [[True, False, False], [True, False, False], [False, False, False]]


def test_equal_logits_give_the_first_class() -> None:
    axis = Axis.between(3, 5)
    assert (decide(torch.ones(4, 3, 3, 3), (axis, axis, axis), Softmax(all_of(4))) == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    logits = torch.zeros(2, 4, 4, 4)
    logits[1, 2, 3, 0] = value
    axis = Axis.between(4, 4)
    with pytest.raises(ModelError, match="no finite numbers; --precision fp32 may help"):
        decide(logits, (axis, axis, axis), Softmax(all_of(2)))
    with pytest.raises(ModelError, match="no finite numbers; --precision fp32 may help"):
        regions(logits, (axis, axis, axis), all_of(2))
