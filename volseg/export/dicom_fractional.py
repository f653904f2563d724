"""The labels' probabilities as a fractional DICOM SEG: a byte a pixel, a frame a label and slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from volseg.errors import ExportError
from volseg.export.dicom_multiframe import write_native
from volseg.export.dicom_seg_header import begin
from volseg.export.outputs import FinishedCase, Written
from volseg.results import FRACTIONAL
from volseg.volume import Label, LabelVolume

#: The number that stands for a probability of 1, as in the maps.
HIGHEST = 255

#: (i, j, n) numbers from 0 to `HIGHEST`: the next n slices.
Slab = npt.NDArray[np.uint8]


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write the probabilities that were made of the case.

    Raises
    ------
    ExportError
        As `volseg.export.dicom_seg.write`; code ``format`` also where no probabilities were asked for.
    """
    path, maps = folder / FRACTIONAL, case.maps
    by_value = {} if maps is None else {each.value: each for each in maps.maps}
    labels = tuple(label for label in case.mask.labels if label.value in by_value)
    if maps is None or not labels:
        raise ExportError("there are no probabilities: ask for them (--probabilities)", code="format", path=path)
    slabs = (slab for label in labels for slab in maps.slabs(by_value[label.value], case.mask.geometry))
    return Written(notes=write(case.mask, labels, slabs, path))


def write(mask: LabelVolume, labels: Sequence[Label], slabs: Iterable[Slab], path: Path) -> tuple[str, ...]:
    """Write probabilities.

    Parameters
    ----------
    mask
        The segmentation that was decided by them.
    labels
        Labels whose probabilities these are: the segments.
    slabs
        All slices of the first label, then of the next, on the mask's grid.
    path
        Path of the file; its folder exists.

    Returns
    -------
    tuple of str
        Notes on what the source's headers lack.

    Raises
    ------
    ExportError
        As `volseg.export.dicom_seg.write`.
    """
    begun = begin(replace(mask, labels=tuple(labels)), path, "fractional", by_segment=True)
    dataset = begun.dataset
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SegmentationType = SegmentationStorage, "FRACTIONAL"
    dataset.SegmentationFractionalType, dataset.MaximumFractionalValue = "PROBABILITY", HIGHEST
    # Any voxel has some probability of every label.
    dataset.SegmentsOverlap = "UNDEFINED"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    count = mask.geometry.shape[2]
    dataset.NumberOfFrames = count * len(labels)
    frames = [begun.slices.frame(k, segment) for segment in range(1, len(labels) + 1) for k in range(count)]
    write_native(path, dataset, frames, _pixels(slabs))
    return begun.notes


def _pixels(slabs: Iterable[Slab]) -> Iterator[bytes]:
    for slab in slabs:
        yield slab.T.tobytes()
