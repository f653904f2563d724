"""Logits of a whole scan from those of its windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from volseg.geometry import Shape
from volseg.inference.blend import gaussian_weight
from volseg.inference.engines import Engine
from volseg.inference.windows import window_slices


def padding_to(shape: Sequence[int], window: Shape) -> tuple[tuple[int, int], ...]:
    """Voxels to add before and behind each axis so that a window fits; the scan stays in the middle."""
    missing = [max(0, length - size) for size, length in zip(shape, window, strict=True)]
    return tuple((gap // 2, gap - gap // 2) for gap in missing)


def mirrored_logits(engines: Sequence[Engine], x_BCDHW: Tensor, mirrored: Sequence[int]) -> Tensor:
    """Mean of the logits over engines (folds) and over every combination of flips along the `mirrored` axes."""
    chosen = itertools.chain.from_iterable(
        itertools.combinations(mirrored, count) for count in range(len(mirrored) + 1)
    )
    flips = [[axis + 2 for axis in axes] for axes in chosen]
    total: Tensor | None = None
    for engine in engines:
        for flip in flips:
            logits = engine(x_BCDHW.flip(flip)).flip(flip)
            total = logits if total is None else total + logits
    assert total is not None
    return total / (len(engines) * len(flips))


def sliding_logits(
    tensor_CDHW: Tensor, engines: Sequence[Engine], window: Shape, step: float, mirrored: Sequence[int] = ()
) -> tuple[Tensor, int]:
    """Logits of a scan: windows at most `step` apart, averaged with a Gaussian weight.

    Parameters
    ----------
    tensor_CDHW
        Network input; where it is smaller than the window it is padded with 0, the mean of a normalised scan, and the
        result cropped back.
    engines
        One a fold; their logits are averaged.
    window
        Sizes along D, H, W.
    step
        Largest step from window to window, as a share of the window.
    mirrored
        Axes (0 D, 1 H, 2 W) along which mirrored passes are averaged.

    Returns
    -------
    tuple
        (outputs, D, H, W) logits, and the number of windows.
    """
    padding = padding_to(tensor_CDHW.shape[1:], window)
    padded = functional.pad(tensor_CDHW, [n for pair in reversed(padding) for n in pair])
    windows = window_slices(padded.shape[1:], window, step)
    weight = gaussian_weight(window)
    total: Tensor | None = None
    weights = torch.zeros(padded.shape[1:])
    for place in windows:
        logits = mirrored_logits(engines, padded[(slice(None), *place)][None], mirrored)[0]
        if total is None:
            total = torch.zeros((logits.shape[0], *padded.shape[1:]))
        total[(slice(None), *place)] += logits * weight
        weights[place] += weight
    assert total is not None
    inner = tuple(slice(before, size - after) for (before, after), size in zip(padding, weights.shape, strict=True))
    return (total / weights)[(slice(None), *inner)], len(windows)
