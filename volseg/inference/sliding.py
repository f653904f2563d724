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

#: Passes that the network sees at once. On a CPU torch takes a slow path for a single one; more than two gain nothing.
BATCH = 2


def padding_to(shape: Sequence[int], window: Shape) -> tuple[tuple[int, int], ...]:
    """Voxels to add before and behind each axis so that a window fits; the scan stays in the middle."""
    missing = [max(0, length - size) for size, length in zip(shape, window, strict=True)]
    return tuple((gap // 2, gap - gap // 2) for gap in missing)


def flip_sets(mirrored: Sequence[int]) -> list[list[int]]:
    """Every combination of the `mirrored` axes, as those of a (C, D, H, W) tensor; the first is none of them."""
    chosen = itertools.chain.from_iterable(
        itertools.combinations(mirrored, count) for count in range(len(mirrored) + 1)
    )
    return [[axis + 1 for axis in axes] for axes in chosen]


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
    flips = flip_sets(mirrored)
    weight = gaussian_weight(window)
    passes = [(place, flip) for place in windows for flip in flips]
    total: Tensor | None = None
    weights = torch.zeros(padded.shape[1:])
    for start in range(0, len(passes), BATCH):
        batch = passes[start : start + BATCH]
        x_BCDHW = torch.stack([padded[(slice(None), *place)].flip(flip) for place, flip in batch])
        for engine in engines:
            for (place, flip), logits in zip(batch, engine(x_BCDHW), strict=True):
                if total is None:
                    total = torch.zeros((logits.shape[0], *padded.shape[1:]))
                total[(slice(None), *place)] += logits.flip(flip) * weight
                weights[place] += weight
    assert total is not None
    inner = tuple(slice(before, size - after) for (before, after), size in zip(padding, weights.shape, strict=True))
    return (total / weights)[(slice(None), *inner)], len(windows)
