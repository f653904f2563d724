"""Where a mask's voxels are, by the mask and by the standard's formula from its SEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from volseg.errors import ExportError
from volseg.export import dicom_seg
from volseg.volume import LabelVolume


def world_points(mask: LabelVolume, value: int) -> np.ndarray:
    """Where the voxels of a label are, sorted."""
    return sort_rows(mask.geometry.voxel_to_world(np.argwhere(mask.array == value)))


def sort_rows(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 2).T)]


def points_by_pydicom(path: Path) -> dict[int, np.ndarray]:
    """RAS mm of the set pixels of each segment, from the standard's formula."""
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    x, y = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    down, across = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    points: dict[int, list[np.ndarray]] = {int(s.SegmentNumber): [] for s in seg.SegmentSequence}
    for frame, item in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = (item if "SegmentIdentificationSequence" in item else shared).SegmentIdentificationSequence[0]
        row, column = np.nonzero(frame)
        origin = np.array(item.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        lps = origin + np.outer(column * across, x) + np.outer(row * down, y)
        points[int(number.ReferencedSegmentNumber)].append(lps * [-1, -1, 1])
    return {number: sort_rows(np.concatenate(found)) for number, found in points.items()}


def refused(mask: LabelVolume, path: Path) -> ExportError:
    with pytest.raises(ExportError) as caught:
        dicom_seg.write(mask, path)
    assert not path.exists()
    assert not list(path.parent.glob(".*.part"))
    return caught.value
