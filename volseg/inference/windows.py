"""Where the sliding window stands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from volseg.geometry import Shape


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


def window_slices(shape: Sequence[int], window: Shape, step: float) -> list[tuple[slice, slice, slice]]:
    """Every window, as slices along D, H, W, the last axis fastest."""
    starts = [axis_starts(size, length, step) for size, length in zip(shape, window, strict=True)]
    d, h, w = window
    return [(slice(a, a + d), slice(b, b + h), slice(c, c + w)) for a, b, c in itertools.product(*starts)]
