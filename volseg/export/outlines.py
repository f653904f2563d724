"""Voxels to closed polygons, slice by slice: along the voxels' edges, a little inwards, without loops over voxels.

A reader fills a polygon by asking which voxel centres are inside, or by rounding its corners to voxels. Edges that run
along the voxels' own edges, `INSET` within, answer both: no centre lies on an edge, and each corner rounds to the voxel
that it belongs to. Voxels that touch at a corner alone are apart.

In a slice, lattice point ``(x, y)`` is the corner between pixels ``x - 1`` and ``x``, ``y - 1`` and ``y``. An outline
turns at lattice points alone, and what a point's four pixels hold says how. Turns joined along rows and columns are the
outlines, with the structure at their left where y points up: counter-clockwise around it, clockwise around a hole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volseg.geometry import Floats

#: How far within the voxels' edges an outline runs, in voxels.
INSET = 0.02
#: Where the channel to a hole lies in its row, from the voxels' centres, in voxels: on no edge and on no centre.
CHANNEL = -0.25
#: Lattice points that are looked at together: their turns take some 40 bytes each, at most.
POINTS = 2**22

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

_RIGHT, _UP, _LEFT, _DOWN = range(4)
#: Unit vectors of the four directions, and of what lies at their left.
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_INWARDS = np.roll(_AHEAD, -1, axis=0)
#: How outlines turn at a point, (direction in, direction out), by the pixels that are set around it: 1 is
#: (x - 1, y - 1), 2 is (x, y - 1), 4 is (x - 1, y), 8 is (x, y).
_TURNS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((_UP, _LEFT),),
    2: ((_LEFT, _DOWN),),
    4: ((_RIGHT, _UP),),
    8: ((_DOWN, _RIGHT),),
    7: ((_LEFT, _UP),),
    11: ((_DOWN, _LEFT),),
    13: ((_UP, _RIGHT),),
    14: ((_RIGHT, _DOWN),),
    # Pixels in contact at the point alone: each keeps its own corner.
    9: ((_UP, _LEFT), (_DOWN, _RIGHT)),
    6: ((_LEFT, _DOWN), (_RIGHT, _UP)),
}
_COUNT = np.array([len(_TURNS.get(code, ())) for code in range(16)], np.uint8)
_IN_OUT = np.array([[(*_TURNS.get(code, ()), (0, 0), (0, 0))[n] for n in range(2)] for code in range(16)], np.int8)


def outlines(mask: Mask, *, keyholes: bool = True) -> Iterator[tuple[int, Floats]]:
    """Closed polygons around the set voxels of each slice along the last axis.

    Parameters
    ----------
    mask
        Boolean array [i, j, k].
    keyholes
        Whether a hole is joined with the outline around it by a channel without width, so that each polygon is filled
        by itself. Otherwise holes are polygons of their own, and a voxel is inside where an odd number of polygons
        surrounds it.

    Yields
    ------
    k
        The slice, ascending.
    corners
        (N, 2) voxel coordinates i, j, N at least 4; 0 is the centre of the first voxel. The first corner isn't
        repeated at the end, and none lies on a straight line between its neighbours but where a channel begins.
    """
    columns, rows, slices = mask.shape
    step = max(POINTS // ((columns + 1) * (rows + 1)), 1)
    for start in range(0, slices, step):
        mask_KJI = mask[:, :, start : start + step].transpose(2, 1, 0)
        if mask_KJI.any():
            traced = _Traced(mask_KJI)
            for k, corners in traced.joined() if keyholes else traced.single():
                yield start + k, corners


@dataclass(frozen=True)
class _Corners:
    """Turns of the outlines of some slices, in the order of k, y, x: lattice points, and directions in and out."""

    k: Ints
    y: Ints
    x: Ints
    into: Ints
    out: Ints


def _corners(mask_KJI: Mask) -> _Corners:
    padded = np.pad(mask_KJI, ((0, 0), (1, 1), (1, 1))).view(np.uint8)
    code = padded[:, 1:, 1:] << 1
    code |= padded[:, 1:, :-1]
    code <<= 2
    code |= padded[:, :-1, 1:] << 1
    code |= padded[:, :-1, :-1]
    at = np.flatnonzero(_COUNT[code])
    codes = code.reshape(-1)[at]
    count = _COUNT[codes]
    point = np.repeat(at, count)
    second = np.append(False, point[1:] == point[:-1]).astype(np.intp)
    into, out = _IN_OUT[np.repeat(codes, count), second].T.astype(np.intp)
    k, y, x = np.unravel_index(point, code.shape)
    return _Corners(k, y, x, into, out)


def _next(corners: _Corners) -> Ints:
    """The corner to which each one's outline goes: along a line, beginnings and ends of one direction alternate."""
    following = np.empty(len(corners.k), np.intp)
    by_column = np.lexsort((corners.y, corners.x, corners.k))
    by_row = np.arange(len(corners.k))
    for direction, order in ((_RIGHT, by_row), (_LEFT, by_row), (_UP, by_column), (_DOWN, by_column)):
        following[order[corners.out[order] == direction]] = order[corners.into[order] == direction]
    return following


def _cycles(following: Ints) -> tuple[Ints, Ints]:
    """Corners in the order of their outlines, one outline after another, and where each begins."""
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    starts: list[int] = []
    for first in range(len(after)):
        if seen[first]:
            continue
        starts.append(len(order))
        corner = first
        while not seen[corner]:
            seen[corner] = 1
            order.append(corner)
            corner = after[corner]
    return np.array(order, np.intp), np.array(starts, np.intp)


class _Traced:
    """Outlines of a few slices [k, j, i], and how holes are joined with what is around them."""

    def __init__(self, mask_KJI: Mask) -> None:
        self._mask_KJI = mask_KJI
        found = _corners(mask_KJI)
        order, self._starts = _cycles(_next(found))
        self._corners = _Corners(*(values[order] for values in vars(found).values()))
        lattice = np.stack([self._corners.x, self._corners.y], axis=1)
        inwards = _INWARDS[self._corners.into] + _INWARDS[self._corners.out]
        self._points: Floats = lattice - 0.5 + INSET * inwards
        self._stops = np.append(self._starts[1:], len(order))
        self._loops = np.repeat(np.arange(len(self._starts)), self._stops - self._starts)

    def single(self) -> Iterator[tuple[int, Floats]]:
        """Each outline by itself, holes too; those of a slice are together."""
        for start, stop in zip(self._starts.tolist(), self._stops.tolist(), strict=True):
            yield int(self._corners.k[start]), self._points[start:stop]

    def joined(self) -> Iterator[tuple[int, Floats]]:
        """Outlines around structures, each with the holes in it."""
        holes = self._holes()
        within = self._channels(holes)
        outer = np.ones(len(self._starts), np.bool_)
        outer[holes] = False
        for loop in np.flatnonzero(outer).tolist():
            start, stop = int(self._starts[loop]), int(self._stops[loop])
            points = self._with_holes(loop, within) if loop in within else self._points[start:stop]
            yield int(self._corners.k[start]), points

    def _holes(self) -> Ints:
        """Loops that run clockwise, by the shoelace formula; only runs along x count, each on its own y."""
        x, y = self._corners.x, self._corners.y
        following = np.append(np.arange(1, len(x)), 0)
        following[self._stops - 1] = self._starts
        twice_area = np.add.reduceat(x * y[following] - x[following] * y, self._starts)
        return np.flatnonzero(twice_area < 0)

    def _channels(self, holes: Ints) -> dict[int, list[tuple[int, float, int]]]:
        """By loop, the channels that leave it: after which corner, at which j, and from which corner of the hole.

        A channel starts at the leftmost edge of a hole and goes left through the row of pixels at its beginning, to the
        first outline that it meets: that of the structure, or another hole's.
        """
        corners = self._corners
        if not len(holes):
            return {}
        at = np.flatnonzero(np.isin(self._loops, holes) & (corners.out == _UP))
        at = at[np.lexsort((corners.y[at], corners.x[at], self._loops[at]))]
        at = at[np.append(True, self._loops[at][1:] != self._loops[at][:-1])]
        k, row, x = corners.k[at], corners.y[at], corners.x[at]
        columns = np.arange(self._mask_KJI.shape[2])
        left = np.where(~self._mask_KJI[k, row] & (columns < x[:, None] - 1), columns + 1, 0).max(axis=1)
        met = self._met(k, left, row)
        channels: dict[int, list[tuple[int, float, int]]] = defaultdict(list)
        for corner, j, hole in zip(met.tolist(), (row + CHANNEL).tolist(), at.tolist(), strict=True):
            channels[int(self._loops[corner])].append((corner, j, hole))
        return channels

    def _met(self, k: Ints, x: Ints, row: Ints) -> Ints:
        """Corners at which the left edges begin that lie at `x` and pass each `row` of pixels."""
        corners = self._corners
        size = np.array(self._mask_KJI.shape) + 1
        down = np.flatnonzero(corners.into == _DOWN)
        key = (corners.k[down] * size[2] + corners.x[down]) * size[1] + corners.y[down]
        order = np.argsort(key)
        ends = down[order[np.searchsorted(key[order], (k * size[2] + x) * size[1] + row, side="right") - 1]]
        before = np.where(ends == self._starts[self._loops[ends]], self._stops[self._loops[ends]], ends) - 1
        return np.asarray(before)

    def _with_holes(self, outer: int, within: dict[int, list[tuple[int, float, int]]]) -> Floats:
        """Corners of a loop and of all that is joined with it, in one polygon."""
        # What is still to be emitted, the last first: points, or a loop from one of its corners on.
        waiting: list[Floats | tuple[int, int]] = [(outer, int(self._starts[outer]))]
        emitted: list[Floats] = []
        while waiting:
            part = waiting.pop()
            if isinstance(part, tuple):
                waiting += reversed(list(self._parts(*part, within.get(part[0], []))))
            else:
                emitted.append(part)
        return np.concatenate(emitted)

    def _parts(
        self, loop: int, first: int, channels: list[tuple[int, float, int]]
    ) -> Iterator[Floats | tuple[int, int]]:
        """The corners of a loop from `first` on; at each channel its two ends, the hole, and its ends again."""
        start, stop = int(self._starts[loop]), int(self._stops[loop])
        position = first
        turns = stop - start
        # Along a left edge j falls.
        for corner, j, hole in sorted(channels, key=lambda channel: ((channel[0] - first) % turns, -channel[1])):
            upto = first + (corner - first) % turns + 1
            yield self._range(position, upto, start, stop)
            position = upto
            begin, end = ([(self._points[c, 0], j)] for c in (corner, hole))
            yield np.array([*begin, *end])
            hole_start, hole_stop = self._starts[self._loops[hole]], self._stops[self._loops[hole]]
            yield int(self._loops[hole]), int(hole + 1 if hole + 1 < hole_stop else hole_start)
            yield np.array([*end, *begin])
        yield self._range(position, first + turns, start, stop)

    def _range(self, low: int, high: int, start: int, stop: int) -> Floats:
        """Points from `low` to `high` of a loop that goes on at `start` when it comes to `stop`."""
        return self._points[start + (np.arange(low, high) - start) % (stop - start)]
