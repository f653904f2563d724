"""Holes of a mask."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def enclosed(mask: Mask) -> Mask:
    """Voxels outside `mask` that it encloses in 3D: no path over faces leads from them past the array's border.

    Parameters
    ----------
    mask
        Boolean array [i, j, k]. It may be cut to the label's bounding box: a voxel on the box's face has the outside
        beside it.

    Returns
    -------
    Mask
        [i, j, k]: the holes alone. A cavity that is open only over an edge or a corner is enclosed (6 neighbours).
    """
    outside = np.pad(~mask, 1, constant_values=True)
    numbers = cc3d.connected_components(outside, connectivity=6)
    holes = outside & (numbers != numbers[0, 0, 0])
    return np.asarray(holes[1:-1, 1:-1, 1:-1])
