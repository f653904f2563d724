"""What is measured of each label: its volume, and the scan's values in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from volseg.export.regions import Regions
from volseg.volume import Label, LabelVolume, Volume


@dataclass(frozen=True, kw_only=True)
class Values:
    """The scan's values in a label's voxels, in the scan's own units."""

    mean: float
    sd: float
    minimum: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What was measured of a label.

    Attributes
    ----------
    voxels, volume_ml
        Number of voxels, and their volume.
    values
        The scan's values in the label's voxels; None where it is empty, or the scan's voxels are not the mask's.
    """

    label: Label
    voxels: int
    volume_ml: float
    values: Values | None


def measure(mask: LabelVolume, scan: Volume) -> Iterator[Measures]:
    """Measure every label of a mask, in its order.

    Parameters
    ----------
    mask
        The segmentation.
    scan
        The scan. Of several channels the first is measured; on another grid than the mask's (a series with a tilt, put
        onto straight slices) volumes alone are.
    """
    channel = scan.array_CIJK[0] if scan.geometry.same_grid(mask.geometry) else None
    for label, box, inside in Regions(mask):
        voxels = int(np.count_nonzero(inside))
        values = None
        if channel is not None and voxels:
            found = channel[box][inside].astype(np.float64)
            values = Values(mean=found.mean(), sd=found.std(), minimum=found.min(), maximum=found.max())
        yield Measures(label=label, voxels=voxels, volume_ml=voxels * mask.geometry.voxel_volume_ml, values=values)
