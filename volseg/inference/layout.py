"""How a scan is streamed: along which axis, in which rows of windows, and how many rows are open at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from volseg.geometry import Shape
from volseg.inference.decide import Axis
from volseg.inference.windows import Place, axis_starts, padding_to, streaming_axis, window_slices
from volseg.preprocess.grid import Part
from volseg.resample import axis_operator


@dataclass(frozen=True)
class Layout:
    """The way of one scan through the network and back to its own grid.

    Rows are numbered along the streaming axis of the padded tensor.

    Attributes
    ----------
    shape, target
        D, H, W of the tensor, and of the grid that labels are restored on.
    window, step
        Sizes of the window, and the largest step as a share of them.
    nearest_axis
        Axis (0 D, 1 H, 2 W) along which logits are restored from the nearest slice; None: they are interpolated.
    part
        The whole that `shape` and `target` are parts of; None: they are whole.
    """

    shape: Shape
    target: Shape
    window: Shape
    step: float
    nearest_axis: int | None = None
    part: Part | None = None

    @cached_property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Voxels to add before and behind D, H, W."""
        return padding_to(self.shape, self.window)

    @cached_property
    def padded(self) -> Shape:
        """D, H, W with padding."""
        d, h, w = (size + sum(pair) for size, pair in zip(self.shape, self.padding, strict=True))
        return d, h, w

    @cached_property
    def turned(self) -> tuple[int, int, int]:
        """D, H, W in the order of rows: the streaming axis, then the others."""
        first = streaming_axis(self.padded, self.window)
        second, third = (axis for axis in range(3) if axis != first)
        return first, second, third

    @cached_property
    def windows(self) -> list[list[Place]]:
        """The windows, row by row."""
        first = self.turned[0]
        places = window_slices(self.padded, self.window, self.step, first)
        return [list(row) for _, row in itertools.groupby(places, key=lambda place: place[first].start)]

    @cached_property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """The way back to the target, in the order of rows."""
        r, h, w = (self._axis(axis) for axis in self.turned)
        return r, h, w

    def _axis(self, axis: int) -> Axis:
        order: Literal[0, 1] = 0 if axis == self.nearest_axis else 1
        if self.part is None:
            return Axis.between(self.shape[axis], self.target[axis], order)
        sizes = self.part.whole_tensor[axis], self.part.whole_target[axis]
        rows, columns = self.part.target.slices[axis], self.part.tensor.slices[axis]
        return Axis.of(axis_operator(*sizes, order)[rows, columns], identity=sizes[0] == sizes[1])

    @cached_property
    def plane(self) -> tuple[int, int]:
        """Sizes of a row."""
        return self.padded[self.turned[1]], self.padded[self.turned[2]]

    @cached_property
    def needed(self) -> list[slice]:
        """Of each row of output blocks: the rows that it needs."""
        before = self.padding[self.turned[0]][0]
        return [slice(before + into.start, before + into.stop) for _, into in self.axes[0].blocks]

    def blocks_before(self, row: int) -> int:
        """How many rows of output blocks can be decided once the rows before `row` are complete."""
        return sum(rows.stop <= row for rows in self.needed)

    def open_rows(self, *, overlap: bool) -> int:
        """Rows that must be held at once.

        Parameters
        ----------
        overlap
            Whether restoring goes on while the network works on the next row of windows.
        """
        first = self.turned[0]
        starts = axis_starts(self.padded[first], self.window[first], self.step)
        restored = [0, *starts] if overlap else starts
        return max(
            start + self.window[first] - self.first_needed(row) for start, row in zip(starts, restored, strict=False)
        )

    def first_needed(self, row: int) -> int:
        """First row that is still needed when what can be restored of the rows before `row` has been."""
        done = self.blocks_before(row)
        return row if done == len(self.needed) else min(row, self.needed[done].start)
