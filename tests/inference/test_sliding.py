from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from volseg.inference.blend import gaussian_weight
from volseg.inference.engines import Precision
from volseg.inference.sliding import sliding_logits
from volseg.inference.windows import axis_starts, window_slices


@pytest.mark.parametrize(
    ("size", "window", "step", "expected"),
    [
        (8, 8, 0.5, [0]),
        (9, 8, 0.5, [0, 1]),
        (12, 8, 0.5, [0, 4]),
        (13, 8, 0.5, [0, 2, 5]),  # 5 voxels in two steps: 2.5, rounded to even
        (110, 64, 0.5, [0, 23, 46]),
        (20, 8, 1.0, [0, 6, 12]),
    ],
)
def test_starts_worked_by_hand(size: int, window: int, step: float, expected: list[int]) -> None:
    assert axis_starts(size, window, step) == expected


@given(size=st.integers(1, 200), window=st.integers(1, 64), step=st.floats(0.1, 1.0))
def test_windows_cover_the_axis_within_the_step(size: int, window: int, step: float) -> None:
    if size < window:
        with pytest.raises(ValueError, match="pad it first"):
            axis_starts(size, window, step)
        return
    starts = axis_starts(size, window, step)
    assert starts[0] == 0
    assert starts[-1] + window == size
    assert all(0 <= b - a <= window * step + 1 for a, b in itertools.pairwise(starts))


def test_the_gaussian_worked_by_hand() -> None:
    weight = gaussian_weight((1, 1, 3))
    # sigma is 3/8 voxel: one voxel off the centre exp(-0.5 (8/3)^2) = exp(-3.5556)
    assert weight.flatten().tolist() == pytest.approx([0.028565, 1.0, 0.028565], abs=1e-6)
    assert (gaussian_weight((40, 56, 40)) > 0).all()


class Pointwise:
    """An engine whose logits at a voxel depend on that voxel alone, so windows can't matter."""

    name = "pointwise"
    precision: Precision = "fp32"

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        self.seen.append(tuple(x_BCDHW.shape))
        return torch.cat([x_BCDHW, 3 - 2 * x_BCDHW], dim=1)


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 19, 8), (3, 4, 5), (17, 9, 30)])
def test_a_pointwise_engine_gives_the_same_as_without_windows(shape: tuple[int, int, int]) -> None:
    tensor = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    engine = Pointwise()
    logits, windows = sliding_logits(tensor, [engine], (8, 8, 8), 0.5)
    assert logits.shape == (2, *shape)
    torch.testing.assert_close(logits, torch.cat([tensor, 3 - 2 * tensor]), atol=1e-5, rtol=1e-5)
    assert sum(shape[0] for shape in engine.seen) == windows
    assert {shape[1:] for shape in engine.seen} == {(1, 8, 8, 8)}


def test_blending_against_a_loop_over_voxels() -> None:
    """The slow, obvious weighting: each voxel's logit is the weighted mean over the windows that hold it."""
    tensor = torch.zeros(1, 4, 4, 7)
    answers = iter([1.0, 5.0, 11.0])

    class Constant(Pointwise):
        def __call__(self, x_BCDHW: Tensor) -> Tensor:
            return torch.stack([torch.full_like(window, next(answers)) for window in x_BCDHW])

    logits, windows = sliding_logits(tensor, [Constant()], (4, 4, 4), 0.5)
    places = window_slices((4, 4, 7), (4, 4, 4), 0.5)
    assert windows == len(places) == 3
    weight = gaussian_weight((4, 4, 4)).double()
    for w in range(7):
        over = under = 0.0
        for value, place in zip((1.0, 5.0, 11.0), places, strict=True):
            if place[2].start <= w < place[2].stop:
                part = weight[1, 2, w - place[2].start].item()
                over, under = over + value * part, under + part
        assert logits[0, 1, 2, w].item() == pytest.approx(over / under, rel=1e-5)


def test_mirrored_passes_are_every_combination_of_flips_turned_back() -> None:
    """A linear engine that isn't symmetric: the mean over flips is the engine's symmetric part."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(1, 2, 3, 4)).astype(np.float32))
    ramp = torch.from_numpy(rng.normal(size=(2, 3, 4)).astype(np.float32))

    class Ramp(Pointwise):
        def __call__(self, x_BCDHW: Tensor) -> Tensor:
            return x_BCDHW * ramp

    flips = [[], [0], [2], [0, 2]]
    expected = torch.stack([x[0] * ramp.flip(axes) for axes in flips]).mean(0)
    logits, windows = sliding_logits(x, [Ramp()], (2, 3, 4), 0.5, (0, 2))
    assert windows == 1
    torch.testing.assert_close(logits[0], expected)


def test_folds_are_averaged() -> None:
    class Two(Pointwise):
        def __call__(self, x_BCDHW: Tensor) -> Tensor:
            return torch.full((len(x_BCDHW), 2, *x_BCDHW.shape[2:]), 4.0)

    logits, _ = sliding_logits(torch.ones(1, 2, 2, 2), [Pointwise(), Two()], (2, 2, 2), 0.5)
    assert (logits == 2.5).all()  # (1 + 4) / 2 for both outputs
