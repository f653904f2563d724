"""Labels from the grid that the network saw onto that of the slices that were stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from volseg.geometry import Geometry
from volseg.resample import resampled
from volseg.volume import LabelVolume


def on_grid(mask: LabelVolume, geometry: Geometry) -> LabelVolume:
    """A mask on another grid: each voxel has the labels of the nearest voxel, or none where there is no voxel."""
    if mask.geometry.same_grid(geometry):
        return mask
    return mask.mapped(
        lambda array: np.ascontiguousarray(resampled(array, mask.geometry, geometry, order=0, fill=0)), geometry
    )


def slabs_on_grid(
    slabs: Iterator[npt.NDArray[np.uint8]], straight: Geometry, stored: Geometry, outside: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Values on the slices that a straight grid was made of (`volseg.resample.straight_grid`), as `on_grid` has labels.

    Parameters
    ----------
    slabs
        (i, j, n) arrays: the next n slices of `straight`.
    straight, stored
        Grids of the same slices, so that each is worked out by itself.
    outside
        Value where there is no voxel.
    """
    k = 0
    for slab in slabs:
        here = straight.cropped((0, 0, k), slab.shape)
        wanted = stored.cropped((0, 0, k), (*stored.shape[:2], slab.shape[2]))
        yield resampled(slab, here, wanted, order=0, fill=outside)
        k += slab.shape[2]
