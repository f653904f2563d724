from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volseg.resample import Order, axis_operator, resize, resize_argmax

sizes = st.integers(2, 9)


def oracle(array: np.ndarray, shape: tuple[int, ...], order: Order) -> np.ndarray:
    """The slow way: scipy's spline zoom of the whole array, one channel after another, clipped to its range."""
    factors = [new / old for new, old in zip(shape, array.shape[1:], strict=True)]
    channels = [ndimage.zoom(c, factors, order=order, mode="nearest", grid_mode=True) for c in array]
    return np.stack([np.clip(out, c.min(), c.max()) for out, c in zip(channels, array, strict=True)])


@given(
    old=st.tuples(sizes, sizes, sizes),
    new=st.tuples(sizes, sizes, sizes),
    order=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_equals_scipys_zoom(old: tuple[int, int, int], new: tuple[int, int, int], order: Order, seed: int) -> None:
    array = np.random.default_rng(seed).normal(size=(2, *old))
    got = resize(torch.from_numpy(array), new, order=order)
    np.testing.assert_allclose(got.numpy(), oracle(array, new, order), atol=1e-12)


def test_linear_doubling_worked_by_hand() -> None:
    # Voxel edges stay: the new centres lie at -0.25, 0.25, 0.75, 1.25 in old indices; beyond the centres it is flat.
    line = torch.tensor([[[[0.0, 4.0]]]])
    assert resize(line, (1, 1, 4), order=1).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def test_a_cubic_spline_does_not_leave_the_range_of_its_channel() -> None:
    step = torch.zeros(2, 1, 1, 8)
    step[0, ..., 4:] = 1.0
    step[1, ..., 4:] = 100.0
    got = resize(step, (1, 1, 24), order=3)
    assert got[0].min() == 0
    assert got[0].max() == 1
    assert got[1].max() == 100


def test_an_axis_of_one_voxel_is_repeated() -> None:
    assert resize(torch.full((1, 1, 2, 3), 5.0), (4, 2, 3), order=3).flatten().tolist() == [5.0] * 24


@pytest.mark.parametrize("order", [1, 3])
def test_rows_of_an_operator_sum_to_one(order: Order) -> None:
    torch.testing.assert_close(axis_operator(7, 19, order).sum(1), torch.ones(19, dtype=torch.float64))


@given(
    old=st.tuples(sizes, sizes, sizes),
    new=st.tuples(*(st.integers(2, 37),) * 3),
    classes=st.integers(1, 6),
    seed=st.integers(0, 99),
    smooth=st.booleans(),
)
def test_pruned_argmax_equals_the_argmax_of_the_resized_logits(
    old: tuple[int, int, int], new: tuple[int, int, int], classes: int, seed: int, smooth: bool
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(classes, *old))
    if smooth:  # one class well ahead in most places, so that blocks are pruned
        logits = ndimage.gaussian_filter(logits, (0, 2, 2, 2)) * 50
    got = resize_argmax(torch.from_numpy(logits), new)
    full = torch.stack([resize(torch.from_numpy(c)[None], new, order=1)[0] for c in logits])
    best = full.sort(0, descending=True).values
    clear = best[0] - best[1] > 1e-9 if classes > 1 else torch.ones(new, dtype=torch.bool)
    assert torch.equal(got[clear], full.argmax(0)[clear])
