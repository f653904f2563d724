"""Closed polygons to voxels: a scanline fill in voxel coordinates, without loops over rows or voxels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from volseg.geometry import Floats

#: Decimal places of a voxel coordinate that count: a corner drawn on a voxel's centre is there whatever the rounding.
DECIMALS = 6
#: Crossings of edges with rows that are in memory at a time.
CROSSINGS = 2**20


def inside(polygons: Sequence[Floats], columns: int, rows: int) -> npt.NDArray[np.bool_]:
    """Voxels whose centre is inside by the even-odd rule over all polygons: a polygon within another is a hole.

    A centre that lies on an edge is inside where the polygon goes on towards higher indices, so that polygons that
    share an edge share no voxel. What lies beyond the plane is cut off.

    Parameters
    ----------
    polygons
        (N, 2) voxel coordinates of the corners, without the first one again at the end; 0 is the centre of the first
        voxel.
    columns, rows
        Size of the plane along the first and the second coordinate.

    Returns
    -------
    array
        [column, row].
    """
    starts = np.round(np.concatenate(polygons), DECIMALS)
    stops = np.round(np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons]), DECIMALS)
    # Both ways along an edge must cross a row at the same place: a keyhole's channel leaves nothing behind.
    upwards = starts[:, 1:] <= stops[:, 1:]
    lower, upper = np.where(upwards, starts, stops), np.where(upwards, stops, starts)
    first = np.clip(np.ceil(lower[:, 1]), 0, rows).astype(np.intp)
    crossed = np.clip(np.ceil(upper[:, 1]), 0, rows).astype(np.intp) - first
    toggles = np.zeros((columns + 1) * rows, np.intp)
    for part in _parts(crossed):
        edge = np.repeat(np.arange(len(crossed))[part], crossed[part])
        row = first[edge] + _counted_up(crossed[part])
        low, high = lower[edge], upper[edge]
        at = low[:, 0] + (row - low[:, 1]) / (high[:, 1] - low[:, 1]) * (high[:, 0] - low[:, 0])
        column = np.clip(np.ceil(np.round(at, DECIMALS)), 0, columns).astype(np.intp)
        toggles += np.bincount(column * rows + row, minlength=toggles.size)
    odd = np.cumsum(toggles.reshape(columns + 1, rows)[:-1], axis=0) % 2
    return np.asarray(odd == 1)


def _counted_up(counts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """0, 1, ... for each count, one after another: of 2 and 3, 0 1 0 1 2."""
    return np.asarray(np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))


def _parts(crossed: npt.NDArray[np.intp]) -> Iterator[slice]:
    """Slices of the edges that cross about `CROSSINGS` rows each, whatever a file makes of its polygons."""
    total = np.cumsum(crossed)
    bounds = np.searchsorted(total, np.arange(CROSSINGS, total[-1], CROSSINGS))
    yield from (slice(low, high) for low, high in itertools.pairwise([0, *bounds.tolist(), len(crossed)]))
