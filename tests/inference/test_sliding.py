"""Where windows stand, how they are weighted, and what the network says of each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from volseg.inference.blend import gaussian_weight, weight_sum
from volseg.inference.engines import Precision
from volseg.inference.engines.head import Head
from volseg.inference.sliding import Constant, flip_sets, window_values
from volseg.inference.windows import Place, axis_starts, streaming_axis, window_slices


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


def test_the_scan_is_streamed_along_the_axis_of_most_windows() -> None:
    assert streaming_axis((30, 60, 50), (8, 8, 8)) == 1
    assert streaming_axis((30, 60, 50), (8, 32, 32)) == 0  # 3.75 windows against 1.9 and 1.6
    assert streaming_axis((16, 8, 16), (8, 8, 8)) == 0


def test_windows_go_along_the_slowest_axis() -> None:
    places = [tuple(part.start for part in place) for place in window_slices((4, 6, 4), (4, 4, 2), 0.5, slowest=1)]
    assert places == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 2, 0), (0, 2, 1), (0, 2, 2)]


@pytest.mark.parametrize("window", [(8, 24, 5), (40, 56, 40), (1, 2, 3)])
def test_the_gaussian_is_that_of_nnunet(window: tuple[int, int, int]) -> None:
    """nnU-Net filters a single 1 in the middle; its maximum is a factor that a weighted mean doesn't depend on."""
    middle = np.zeros(window)
    middle[tuple(size // 2 for size in window)] = 1
    expected = ndimage.gaussian_filter(middle, [size / 8 for size in window], mode="constant")
    expected /= expected.max()
    assert gaussian_weight(window).numpy() == pytest.approx(expected, rel=1e-5)
    assert (gaussian_weight(window) > 0).all()


@given(
    shape=st.tuples(*(st.integers(4, 15),) * 3), window=st.tuples(*(st.integers(1, 4),) * 3), step=st.floats(0.5, 1.0)
)
def test_the_sum_of_weights_is_a_product(
    shape: tuple[int, int, int], window: tuple[int, int, int], step: float
) -> None:
    total = torch.zeros(shape, dtype=torch.float64)
    for place in window_slices(shape, window, step):
        total[place] += gaussian_weight(window)
    d, h, w = (weight_sum(size, length, step) for size, length in zip(shape, window, strict=True))
    torch.testing.assert_close(d[:, None, None] * h[:, None] * w, total, rtol=1e-6, atol=0)


class Ramp:
    """An engine that isn't symmetric: two outputs, the input times a ramp, and `value`."""

    name = "ramp"
    precision: Precision = "fp32"
    note: str | None = None
    head: Head | None = None
    values_held = 1.0

    def __init__(self, value: float) -> None:
        self.value = value
        self.seen: list[int] = []

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        self.seen.append(len(x_BCDHW))
        ramp = torch.arange(x_BCDHW[0, 0].numel()).view(x_BCDHW.shape[2:])
        return torch.cat([x_BCDHW[:, :1] * ramp, torch.full_like(x_BCDHW[:, :1], self.value)], 1).movedim(1, -1)


def test_every_pass_of_a_row_is_turned_back() -> None:
    tensor = torch.randn((1, 4, 3, 5), generator=torch.Generator().manual_seed(1))
    row: list[Place] = [(slice(1, 3), slice(0, 3), slice(start, start + 4)) for start in (0, 1)]
    flips = flip_sets((0, 2))
    assert flips == [[], [1], [3], [1, 3]]
    engines = [Ramp(4.0), Ramp(9.0)]
    ramp = torch.arange(24.0).view(2, 3, 4)
    found: list[tuple[int, int, float]] = []
    sums: dict[int, Tensor] = {0: torch.zeros(2, 3, 4), 1: torch.zeros(2, 3, 4)}
    for place, number, values_DHWV in window_values(tensor, engines, row, flips, Constant(engines)):
        assert values_DHWV.shape == (2, 3, 4, 2)
        found.append((place[2].start, number, values_DHWV[0, 0, 0, 1].item()))
        sums[place[2].start] += values_DHWV[..., 0]
    # Two passes at once, and every engine sees them before the next two.
    assert [(number, value) for _, number, value in found] == [(0, 4.0), (0, 4.0), (1, 9.0), (1, 9.0)] * 4
    assert [start for start, _, _ in found] == [0] * 8 + [1] * 8
    assert engines[0].seen == engines[1].seen == [2, 2, 2, 2]
    symmetric = sum((ramp.flip(axes) for axes in ([], [0], [2], [0, 2])), torch.zeros(()))
    for place in row:
        torch.testing.assert_close(sums[place[2].start], 2 * tensor[0][place] * symmetric)


def test_constant_windows_are_computed_once_and_turned_as_the_others() -> None:
    """Of four windows along W, the two of zeros are one pass, whatever the flips; so is each of another value."""
    tensor = torch.zeros(1, 2, 3, 16)
    tensor[..., 7] = 1.0
    tensor[..., 12:] = 5.0
    row: list[Place] = [(slice(0, 2), slice(0, 3), slice(start, start + 4)) for start in (0, 2, 4, 12)]
    engines, flips = [Ramp(4.0)], flip_sets((2,))
    constant = Constant(engines)
    ramp = torch.arange(24.0).view(2, 3, 4)
    sums = {place[2].start: torch.zeros(2, 3, 4) for place in row}
    for place, _, values_DHWV in window_values(tensor, engines, row, flips, constant):
        sums[place[2].start] += values_DHWV[..., 0]
    # Zeros once, fives once, and the two passes of the window that isn't constant together.
    assert sorted(engines[0].seen) == [1, 1, 2]
    symmetric = ramp + ramp.flip(2)
    for place in row:
        torch.testing.assert_close(sums[place[2].start], tensor[0][place] * symmetric)
    list(window_values(tensor, engines, row[3:], flips, constant))
    assert len(engines[0].seen) == 3
    list(window_values(tensor, engines, row[:1], flips, constant))
    assert len(engines[0].seen) == 4


def test_a_window_is_constant_only_where_every_channel_is() -> None:
    tensor = torch.zeros(2, 2, 3, 4)
    tensor[1] = 7.0
    constant = Constant([Ramp(1.0)])
    assert constant.of(tensor) is not None
    tensor[1, 1, 1, 2] = 8.0
    assert constant.of(tensor) is None
    tensor[1, 1, 1, 2] = float("nan")
    assert constant.of(tensor) is None
