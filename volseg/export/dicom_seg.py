"""A segmentation as DICOM SEG, referring to the slices of the series it was made from: binary, or a label map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from volseg.export.dicom_multiframe import packed, run_lengths, write_compressed, write_native
from volseg.export.dicom_seg_header import Slices, begin
from volseg.export.regions import Mask, Regions
from volseg.volume import LabelVolume

#: Up to this size (bytes of pixel data) every segment has a frame on every slice. ITK takes frames to be evenly spaced
#: and misplaces those of a SEG that leaves some out; above, the size matters more.
FULL_FRAMES_BYTES = 64 * 2**20
#: A binary SEG of more frames than this gets a note: some viewers take minutes, or refuse it.
MANY_FRAMES = 2000

#: Class of label maps; pydicom has no name for it yet.
LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")

#: ``"binary"``: a frame of bits for each label and slice, which every reader knows. ``"labelmap"``: a frame of numbers
#: for each slice (DICOM's supplement 243), smaller and faster by far, which only newer ones do.
Kind = Literal["binary", "labelmap"]


def write(mask: LabelVolume, path: Path, *, kind: Kind = "binary") -> tuple[str, ...]:
    """Write `mask` to `path` as a DICOM SEG.

    Segments are numbered from 1 in the order of the labels, whether or not they occur: a label has the same number in
    every case. Frames lie on the positions that the source's headers give, ascending as its slices do. UIDs are those
    of `volseg.export.dicom_derived.Uids`.

    Parameters
    ----------
    mask
        The segmentation.
    path
        File to write; its folder exists.
    kind
        Kind of the segmentation: how voxels are kept.

    Returns
    -------
    tuple of str
        Notes on what the source's headers lack, which is therefore empty here.

    Raises
    ------
    ExportError
        Code ``no-source-series``: there is no DICOM series, or its files are gone. ``no-identity``: its UIDs are
        blank, or not those that were read. ``grid-mismatch``: its slices are not where the mask is. ``format``: no
        labels, a voxel that none declares, or more frames than an object holds. ``no-room``: the disk is full.
    """
    # Slice by slice in memory, as they are read from here on: else each pixel of a slice costs a cache line.
    mask = mask.mapped(np.asfortranarray)
    begun = begin(mask, path, kind, by_segment=kind == "binary")
    dataset, slices, notes = begun.dataset, begun.slices, begun.notes
    regions = Regions(mask, path)
    if kind == "labelmap":
        dataset.SegmentsOverlap = "NO"
        _write_label_map(mask, dataset, slices, path)
        painted = "labels overlap, and a label map has one a voxel: the last of them"
        return (*notes, painted) if mask.layers else notes
    frames = _write_binary(mask, regions, dataset, slices, path)
    many = f"has {frames} frames, which some viewers take long to open; --format labelmap has one a slice"
    return (*notes, many) if frames > MANY_FRAMES else notes


def _write_binary(mask: LabelVolume, regions: Regions, dataset: Dataset, slices: Slices, path: Path) -> int:
    """Write a frame for each label and slice, ordered by label, then slice, and return their number."""
    columns, rows, count = mask.geometry.shape
    full = mask.array.size * len(mask.labels) <= 8 * FULL_FRAMES_BYTES
    occupied = [[*range(count)] if full else places for places in _occupied(regions)]
    if not any(occupied):
        # An object without frames isn't allowed.
        occupied[0] = [*range(count)]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SegmentationType = SegmentationStorage, "BINARY"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.NumberOfFrames = sum(map(len, occupied))
    frames = [slices.frame(k, segment) for segment, places in enumerate(occupied, start=1) for k in places]
    write_native(path, dataset, frames, packed(_frames(regions, occupied, (rows, columns)), rows * columns))
    return len(frames)


def _occupied(regions: Regions) -> Iterator[list[int]]:
    """Slices on which each label has a voxel."""
    for _, box, inside in regions:
        yield (box[2].start + np.flatnonzero(inside.any(axis=(0, 1)))).tolist()


def _frames(regions: Regions, occupied: Sequence[Sequence[int]], shape: tuple[int, int]) -> Iterator[Mask]:
    """Pixels [row, column] of the frames."""
    for (_, box, inside), places in zip(regions, occupied, strict=True):
        for k in places:
            frame = np.zeros(shape, np.bool_)
            if box[2].start <= k < box[2].stop:
                frame[box[1], box[0]] = inside[:, :, k - box[2].start].T
            yield frame


def _write_label_map(mask: LabelVolume, dataset: Dataset, slices: Slices, path: Path) -> None:
    """Write a frame of segment numbers for each slice, run-length encoded: what every reader of label maps decodes."""
    values = [label.value for label in mask.labels]
    numbers = np.zeros(values[-1] + 1, np.min_scalar_type(len(values)))
    numbers[values] = np.arange(1, len(values) + 1)
    bits = 8 * numbers.itemsize
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.SOPClassUID, dataset.SegmentationType = LABEL_MAP_STORAGE, "LABELMAP"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelPaddingValue = 0
    dataset.NumberOfFrames = mask.geometry.shape[2]
    frames = [slices.frame(k) for k in range(dataset.NumberOfFrames)]
    write_compressed(path, dataset, frames, [run_lengths(numbers[slab]) for slab in mask.array.T])
