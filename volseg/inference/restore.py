"""Labels from the grid that the network saw onto that of the slices that were stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from volseg.geometry import Geometry
from volseg.resample import resampled
from volseg.volume import LabelVolume


def on_grid(labels: LabelVolume, geometry: Geometry) -> LabelVolume:
    """Labels on another grid: each voxel has that of the nearest voxel, or none where there is no voxel."""
    if labels.geometry.same_grid(geometry):
        return labels
    array = np.ascontiguousarray(resampled(labels.array, labels.geometry, geometry, order=0, fill=0))
    return replace(labels, array=array, geometry=geometry)
