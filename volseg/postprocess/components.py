"""Connected components of a mask, by connected-components-3d; voxels that share a corner connect (26 neighbours)."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt

from volseg.geometry import Geometry

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

#: Centroids nearer than this along an axis, in mm, are equal when two components of one size compete.
CENTROID_MM = 1e-3


def _components(mask: Mask) -> tuple[npt.NDArray[np.unsignedinteger], Counts]:
    """Components [i, j, k] numbered from 1, and the voxels of each: ``counts[0]`` is 0, not the background's."""
    numbers = cc3d.connected_components(mask, connectivity=26)
    counts = np.asarray(cc3d.statistics(numbers)["voxel_counts"]).astype(np.int64)
    counts[0] = 0
    return numbers, counts


def largest_component(mask: Mask, geometry: Geometry) -> Mask:
    """Keep the component with most voxels.

    Among components of the same size the one whose centroid lies furthest to the patient's right stays, then
    anterior, then superior: how a file is stored doesn't decide. Only where the centroids are the same too (one shell
    inside another) the order of the voxels does.

    Parameters
    ----------
    mask
        Boolean array [i, j, k].
    geometry
        Its grid.
    """
    numbers, counts = _components(mask)
    largest = np.flatnonzero(counts == counts.max())
    if counts.max() == 0:
        return mask
    if len(largest) == 1:
        return np.asarray(numbers == largest[0])
    centroids = [geometry.voxel_to_world(np.argwhere(numbers == number).mean(axis=0)) for number in largest]
    rounded = np.round(np.array(centroids) / CENTROID_MM)
    last_key_first = np.lexsort(rounded.T[::-1])
    return np.asarray(numbers == largest[last_key_first[-1]])


def drop_small(mask: Mask, min_voxels: int) -> Mask:
    """Remove components of fewer than `min_voxels` voxels from `mask` [i, j, k]."""
    numbers, counts = _components(mask)
    return np.asarray((counts >= max(min_voxels, 1))[numbers])
