"""What the network says of each window of a scan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from volseg.inference.engines import Engine
from volseg.inference.windows import Place

#: Passes that the network sees at once. On a CPU torch takes a slow path for a single one; more than two gain nothing.
BATCH = 2


def flip_sets(mirrored: Sequence[int]) -> list[list[int]]:
    """Every combination of the `mirrored` axes, as those of a (C, D, H, W) tensor; the first is none of them."""
    chosen = itertools.chain.from_iterable(
        itertools.combinations(mirrored, count) for count in range(len(mirrored) + 1)
    )
    return [[axis + 1 for axis in axes] for axes in chosen]


def window_logits(
    tensor_CDHW: Tensor, engines: Sequence[Engine], row: Sequence[Place], flips: Sequence[list[int]]
) -> Iterator[tuple[Place, Tensor]]:
    """Logits of every pass of one row of windows.

    Parameters
    ----------
    tensor_CDHW
        Network input, no smaller than a window.
    engines
        One a fold.
    row
        Windows that begin at the same voxel of the streaming axis.
    flips
        As `flip_sets` gives them.

    Yields
    ------
    tuple
        The window, and its (D, H, W, C) logits, turned back, by one engine and one set of flips. The order depends on
        nothing else but the parameters.
    """
    passes = [(place, flip) for place in row for flip in flips]
    for start in range(0, len(passes), BATCH):
        batch = passes[start : start + BATCH]
        x_BCDHW = torch.stack([tensor_CDHW[(slice(None), *place)].flip(flip) for place, flip in batch])
        for engine in engines:
            for (place, flip), logits_CDHW in zip(batch, engine(x_BCDHW), strict=True):
                # Free where the engine's memory is channels last already; else torch's fast transposition.
                flat = logits_CDHW.flatten(1).t().contiguous()
                logits = flat.view(*logits_CDHW.shape[1:], -1)
                yield place, logits.flip([axis - 1 for axis in flip]) if flip else logits
