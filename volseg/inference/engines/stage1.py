"""An engine of a cascade's second stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from volseg.inference.engines import Engine


class Stage1Engine:
    """An engine whose input's last channel holds the labels of the first stage: the network sees a mask of each.

    In this way a scan's labels take one channel of its size, however many there are.

    Parameters
    ----------
    engine
        The engine that runs the network.
    values
        Values of the labels, in the order of the network's channels.
    """

    def __init__(self, engine: Engine, values: Sequence[int]) -> None:
        self.engine = engine
        self.name, self.precision, self.note = engine.name, engine.precision, engine.note
        self.head, self.values_held = engine.head, engine.values_held
        self._values_C111 = torch.tensor(values, dtype=torch.float32)[:, None, None, None]

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        """Logits or features, as `volseg.inference.engines.Engine` says."""
        masks = (x_BCDHW[:, -1:] == self._values_C111).to(x_BCDHW)
        return self.engine(torch.cat([x_BCDHW[:, :-1], masks], dim=1))
