"""Rows of the slab to labels, as they become complete, beside the network."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from volseg.config import Recipe
from volseg.inference.blend import weight_sum
from volseg.inference.decide import Decision, Labels, Sigmoid, Softmax, restore_regions, restore_rows
from volseg.inference.engines.head import Head
from volseg.inference.layout import Layout
from volseg.inference.maps import Maps
from volseg.inference.probabilities import output_of
from volseg.inference.quality import Confidence
from volseg.inference.slab import Slab

#: Threads that restore when the network is done.
RESTORERS = 2


class Restorer:
    """What makes labels of rows, one row of blocks at a time.

    Parameters
    ----------
    layout, slab
        Layout of the scan, and the sums of its rows.
    passes
        Number of times that each window's weight was added.
    head
        The layer that makes logits of a voxel's means; None: they are logits.
    recipe, wanted
        Recipe, for labels and output, and the values of the labels that are asked for.
    target
        (1, R, H, W) labels of the whole scan, or with sigmoid its regions, as `restore_regions` writes them.
    maps
        Maps that are made beside the labels, where there are any.
    """

    def __init__(
        self,
        layout: Layout,
        slab: Slab,
        passes: int,
        head: Head | None,
        recipe: Recipe,
        wanted: Collection[int],
        target: Labels,
        maps: Maps | None,
    ) -> None:
        self.layout, self.slab, self.head, self.maps = layout, slab, head, maps
        values = [label.value for label in recipe.labels]
        asked = [value in wanted for value in values]
        self.decision: Decision
        if recipe.output == "softmax":
            self.decision = softmax = Softmax(torch.tensor([False, *asked]))
            table = np.array([0, *(value * ask for value, ask in zip(values, asked, strict=True))], target.dtype)
            self._decide = partial(restore_rows, decision=softmax, table=table, target=target[0])
        else:
            self.decision = sigmoid = Sigmoid(torch.tensor(asked))
            self._decide = partial(restore_regions, decision=sigmoid, target=target)
        self.confidence = Confidence(self.decision, output_of(recipe), recipe.outputs)
        # Of each axis the part that isn't padding; each pass of a window adds its weight once.
        places, sums = [], []
        for axis in layout.turned:
            (before, _), size = layout.padding[axis], layout.shape[axis]
            places.append(slice(before, before + size))
            sums.append(weight_sum(layout.padded[axis], layout.window[axis], layout.step))
        self.place = (places[1], places[2])
        self.row_sum = sums[0] * passes
        self.plane_sum = sums[1][places[1], None] * sums[2][places[2]]
        self.done = 0
        self.cleared = 0

    def block(self, block: int) -> None:
        """Decide one row of blocks, all of whose rows are complete."""
        layout = self.layout
        rows = layout.needed[block]
        divisor = (self.row_sum[rows, None, None] * self.plane_sum).float()
        values = self.slab.mean(rows, self.place, divisor)
        logits = values if self.head is None else self.head(values)
        self._decide(logits, layout.axes, block)
        seen = layout.needed[block - 1].stop if block else rows.start
        self.confidence.add(logits[max(0, seen - rows.start) :], block)
        if self.maps is not None:
            self.maps.add(logits, block)

    def restore(self, row: int) -> None:
        """Decide what the rows before `row` suffice for, and drop the rows that are no longer needed."""
        layout = self.layout
        for block in range(self.done, layout.blocks_before(row)):
            self.block(block)
            self.done = block + 1
        needed = layout.first_needed(row)
        self.slab.clear(slice(self.cleared, needed))
        self.cleared = needed


class Worker:
    """Restoring, in threads of its own; `waited` is how many seconds that held up the network.

    Parameters
    ----------
    overlap
        Whether the network goes on meanwhile, and several rows of blocks are restored at once when it is done.
    """

    def __init__(self, restorer: Restorer, pool: ThreadPoolExecutor, *, overlap: bool) -> None:
        self.restorer, self.pool, self.overlap = restorer, pool, overlap
        self.pending: Future[None] | None = None
        self.waited = 0.0

    def complete(self, row: int) -> None:
        """The rows before `row` are complete. On return, what the last call gave to do is done, without overlap all."""
        with self._waiting():
            self._settle()
            self.pending = self.pool.submit(self.restorer.restore, row)
            if not self.overlap:
                self._settle()

    def finish(self, rows: int) -> None:
        """All `rows` are complete: return when all is restored."""
        with self._waiting():
            self._settle()
            if self.overlap:
                blocks = range(self.restorer.done, self.restorer.layout.blocks_before(rows))
                list(self.pool.map(self.restorer.block, blocks))
            else:
                self.pool.submit(self.restorer.restore, rows).result()

    def _settle(self) -> None:
        if self.pending is not None:
            self.pending.result()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start
