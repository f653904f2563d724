"""What the network says of each window of a scan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from volseg.geometry import Shape
from volseg.inference.engines import Engine
from volseg.inference.windows import Place

#: Passes that the network sees at once, where windows are small: on a CPU torch takes a slow path for a single one, and
#: more than two gain nothing.
BATCH = 2
#: Voxels of the windows seen at once. With larger ones, a second pass takes more memory than all else (600 MB for
#: 64 x 96 x 112 and 118 outputs); torch takes 10 to 25 % longer without it.
BATCH_VOXELS = 2 * 64**3


def passes_at_once(window: Shape) -> int:
    """How many passes of a window the network sees at once."""
    return max(1, min(BATCH, BATCH_VOXELS // math.prod(window)))


def flip_sets(mirrored: Sequence[int]) -> list[list[int]]:
    """Every combination of the `mirrored` axes, as those of a (C, D, H, W) tensor; the first is none of them."""
    chosen = itertools.chain.from_iterable(
        itertools.combinations(mirrored, count) for count in range(len(mirrored) + 1)
    )
    return [[axis + 1 for axis in axes] for axes in chosen]


class Constant:
    """What engines say of a window in which each channel has one value, as outside the body: computed once.

    The last such values alone are held.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines
        self._input: Tensor | None = None
        self._values: list[Tensor] = []

    def of(self, window_CDHW: Tensor) -> list[Tensor] | None:
        """(D, H, W, values) of each engine; None where the window isn't constant."""
        first_C111 = window_CDHW[:, :1, :1, :1]
        # One face alone tells in nearly every window that isn't.
        if (window_CDHW[..., 0] != first_C111[..., 0]).any() or (window_CDHW != first_C111).any():
            return None
        if self._input is None or not torch.equal(self._input, first_C111):
            self._input = first_C111.clone()
            self._values = [engine(window_CDHW[None])[0] for engine in self.engines]
        return self._values


def window_values(
    tensor_CDHW: Tensor,
    engines: Sequence[Engine],
    row: Sequence[Place],
    flips: Sequence[list[int]],
    constant: Constant,
) -> Iterator[tuple[Place, int, Tensor]]:
    """What every engine says in every pass of one row of windows.

    Parameters
    ----------
    tensor_CDHW
        Network input, no smaller than a window.
    engines
        Engines, one a fold.
    row
        Windows that begin at the same voxel of the streaming axis.
    flips
        Sets of axes to flip, as `flip_sets` gives them.
    constant
        Values of windows in which a channel has one value alone, by the same engines; kept from row to row.

    Yields
    ------
    tuple
        The window, the engine's number, and its (D, H, W, values) in one pass, turned back. The order depends on
        nothing else but the parameters.
    """
    passes = []
    for place in row:
        known = constant.of(tensor_CDHW[(slice(None), *place)])
        if known is None:
            passes += [(place, flip) for flip in flips]
        for (number, values_DHWV), flip in itertools.product(enumerate(known or ()), flips):
            yield place, number, _turned_back(values_DHWV, flip)
    d, h, w = (part.stop - part.start for part in row[0])
    size = passes_at_once((d, h, w))
    for start in range(0, len(passes), size):
        batch = passes[start : start + size]
        x_BCDHW = torch.stack([tensor_CDHW[(slice(None), *place)].flip(flip) for place, flip in batch])
        for number, engine in enumerate(engines):
            for (place, flip), values_DHWV in zip(batch, engine(x_BCDHW), strict=True):
                yield place, number, _turned_back(values_DHWV, flip)
            # They may be larger than all else: not to be held while the next are made.
            del values_DHWV


def _turned_back(values_DHWV: Tensor, flip: Sequence[int]) -> Tensor:
    """Values of a pass whose input was flipped along the axes `flip` of (C, D, H, W)."""
    return values_DHWV.flip([axis - 1 for axis in flip]) if flip else values_DHWV
