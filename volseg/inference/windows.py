"""Where the sliding window stands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from volseg.geometry import Shape

#: A window's place: slices along D, H, W.
Place = tuple[slice, slice, slice]


def axis_starts(size: int, window: int, step: float) -> list[int]:
    """First index of each window along one axis.

    As few windows as cover the axis with steps of at most ``step * window``, spread evenly: the first begins at 0,
    the last ends at `size`.

    Parameters
    ----------
    size
        Length of the axis, at least `window`.
    window
        Length of the window.
    step
        Largest step, as a share of the window.
    """
    if size < window:
        raise ValueError(f"an axis of {size} is shorter than the window of {window}: pad it first")
    steps = math.ceil((size - window) / (window * step))
    return [round(index * (size - window) / max(steps, 1)) for index in range(steps + 1)]


def padding_to(shape: Sequence[int], window: Shape) -> tuple[tuple[int, int], ...]:
    """Voxels to add before and behind each axis so that a window fits; the scan stays in the middle."""
    missing = [max(0, length - size) for size, length in zip(shape, window, strict=True)]
    return tuple((gap // 2, gap - gap // 2) for gap in missing)


def streaming_axis(shape: Sequence[int], window: Shape) -> int:
    """Axis along which a scan is longest, in windows: the rows that are open at once are the smallest part of it."""
    return max(range(3), key=lambda axis: shape[axis] / window[axis])


def window_slices(shape: Sequence[int], window: Shape, step: float, slowest: int = 0) -> list[Place]:
    """Every window, in order along the `slowest` axis; within a row of windows, the last axis is fastest."""
    starts = [axis_starts(size, length, step) for size, length in zip(shape, window, strict=True)]
    d, h, w = window
    places = [(slice(a, a + d), slice(b, b + h), slice(c, c + w)) for a, b, c in itertools.product(*starts)]
    return sorted(places, key=lambda place: place[slowest].start)
