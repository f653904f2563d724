"""A segmentation as DICOM RTSTRUCT: one region a label, its closed contours in the planes of the source's images."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from volseg import __version__
from volseg.errors import ExportError
from volseg.export.dicom_derived import (
    Uids,
    coded,
    complete_identity,
    derived_from,
    series_number,
)
from volseg.export.dicom_source import check_grid, plane_of, read_headers, reference
from volseg.export.outlines import outlines
from volseg.export.regions import Regions
from volseg.export.terms import LO_LENGTH, SH_LENGTH, text
from volseg.files import write_atomically
from volseg.geometry import Floats
from volseg.labels.dictionary import with_codes
from volseg.loaders.dicom.quiet import quiet
from volseg.volume import DicomSource, Label, LabelVolume

#: How a hole is told: by a channel to the outline around it, or by a contour of its own that takes its inside away.
Holes = Literal["keyhole", "xor"]

#: Contours are rounded to this share of the smallest distance between pixels: a twentieth of `outlines.INSET`.
ROUNDED_SHARE = 1e-3
#: Longest number of DICOM's value representation DS, in characters; some planning systems refuse longer ones.
DS_LENGTH = 16
#: Class of the study that an RTSTRUCT refers to (retired, and still what readers expect).
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"

_CONTOUR_SEQUENCE, _CONTOUR_IMAGES = Tag("ContourSequence"), Tag("ContourImageSequence")
_TYPE, _POINTS, _DATA = Tag("ContourGeometricType"), Tag("NumberOfContourPoints"), Tag("ContourData")
_ITEM = Tag(0xFFFE, 0xE000)
_TYPES: dict[Holes, bytes] = {"keyhole": b"CLOSED_PLANAR ", "xor": b"CLOSEDPLANAR_XOR"}


@dataclass(frozen=True)
class _Plane:
    """Where the pixels of a slice are (`plane_of`), and the encoded reference to its image."""

    origin: Floats
    steps: Floats
    image: bytes


def write(mask: LabelVolume, path: Path, *, holes: Holes = "keyhole") -> tuple[str, ...]:
    """Write `mask` to `path` as an RTSTRUCT.

    Regions are numbered from 1 in the order of the labels, whether or not they occur; one that doesn't has no contours.
    Contours follow the voxels' edges, `outlines.INSET` within, so that filling them gives the voxels back. UIDs are
    made of the source's and of the mask: the same mask of the same scan gets the same ones.

    Parameters
    ----------
    mask
        The segmentation.
    path
        File to write; its folder exists.
    holes
        Kind of the holes' contours. ``"keyhole"``: one CLOSED_PLANAR contour for an outline and the holes in it, which
        every reader fills alike. ``"xor"``: CLOSEDPLANAR_XOR contours, one each.

    Returns
    -------
    tuple of str
        Notes on what the source's headers lack, which is therefore empty here, and on names that were changed.

    Raises
    ------
    ExportError
        As `volseg.export.dicom_seg.write`; code ``format`` also for coordinates that DICOM's numbers can't hold.
    """
    stream = io.BytesIO()
    quiet()
    headers = read_headers(mask, path)
    check_grid(mask, headers, path)
    regions = Regions(mask, path)
    notes = complete_identity(headers[0])
    names, changed = _names(mask.labels, path)
    dataset = _structure_set(mask, headers, names, holes)
    dataset.ROIContourSequence = list(_regions(mask, regions, headers, holes, path))
    dataset.save_as(stream, enforce_file_format=True)
    write_atomically(path, stream.getvalue())
    return (*notes, *changed)


def _names(labels: Sequence[Label], path: Path) -> tuple[list[str], tuple[str, ...]]:
    """A name for each label, none twice whatever the case of letters, and a note for each that was changed."""
    if not labels:
        raise ExportError("an RTSTRUCT needs at least one label", code="format", path=path)
    taken: set[str] = set()
    names, notes = [], []
    for label in labels:
        name = text(label.name)
        if name.casefold() in taken:
            ending = f" ({label.value})"
            name = text(label.name, LO_LENGTH - len(ending)) + ending
        taken.add(name.casefold())
        names.append(name)
        if name != label.name:
            notes.append(f"label {label.name[:80]!r} is called {name!r} in the RTSTRUCT")
    return names, tuple(notes)


def _structure_set(mask: LabelVolume, headers: Sequence[Dataset], names: Sequence[str], holes: Holes) -> Dataset:
    """All but the contours."""
    first, now = headers[0], datetime.now()
    dicom = mask.source.dicom
    assert dicom is not None  # or it would have no headers
    uids = Uids(mask, "rtstruct", holes)
    dataset = derived_from(first)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = uids.instance
    dataset.SeriesInstanceUID = uids.series
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "RTSTRUCT", series_number(first, 2000), 1
    dataset.SeriesDescription = text(f"volseg contours: {first.get('SeriesDescription') or 'segmentation'}")
    dataset.Manufacturer = dataset.ManufacturerModelName = "volseg"
    dataset.DeviceSerialNumber = dataset.SoftwareVersions = __version__
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = text("volseg", SH_LENGTH)
    dataset.StructureSetName = text(f"volseg {mask.algorithm}")
    dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.StructureSetDate, dataset.StructureSetTime
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.FrameOfReferenceUID = dicom.frame_of_reference_uid
    dataset.PositionReferenceIndicator = str(first.get("PositionReferenceIndicator") or "")
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(dicom)]
    algorithm = text(f"volseg {__version__} {mask.algorithm}")
    numbered = list(enumerate(zip(mask.labels, names, strict=True), start=1))
    dataset.StructureSetROISequence = [
        _region(number, name, dicom.frame_of_reference_uid, algorithm) for number, (_, name) in numbered
    ]
    dataset.RTROIObservationsSequence = [_observation(number, label, name) for number, (label, name) in numbered]
    return dataset


def _frame_of_reference(dicom: DicomSource) -> Dataset:
    """The frame of reference, with every image that the mask was made from."""
    series, study, frame = Dataset(), reference(_STUDY_CLASS, dicom.study_uid), Dataset()
    series.SeriesInstanceUID = dicom.series_uid
    images = dict.fromkeys((instance.sop_class_uid, instance.sop_instance_uid) for instance in dicom.instances)
    series.ContourImageSequence = [reference(*image) for image in images]
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = dicom.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(number: int, name: str, frame_of_reference_uid: str, algorithm: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = number, name
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    item.ROIGenerationAlgorithm, item.ROIGenerationDescription = "AUTOMATIC", algorithm
    return item


def _observation(number: int, label: Label, name: str) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.ROIObservationLabel = text(name, SH_LENGTH)
    if (code := with_codes(label).code) is not None:
        item.RTROIIdentificationCodeSequence = [coded(code)]
    item.RTROIInterpretedType = "ORGAN"
    item.ROIInterpreter = ""
    return item


def _regions(
    mask: LabelVolume, regions: Regions, headers: Sequence[Dataset], holes: Holes, path: Path
) -> Iterator[Dataset]:
    dicom = mask.source.dicom
    assert dicom is not None
    planes = []
    for header, instance in zip(headers, dicom.instances, strict=True):
        frame = None if instance.frame is None else instance.frame + 1
        image = _encoded(reference(instance.sop_class_uid, instance.sop_instance_uid, frame))
        planes.append(_Plane(*plane_of(header), _element(_CONTOUR_IMAGES, _element(_ITEM, image))))
    number_format = _number_format(planes, mask.geometry.shape, path)
    for number, (label, box, inside) in enumerate(regions, start=1):
        item = Dataset()
        item.ROIDisplayColor = list(label.colour)
        item.ReferencedROINumber = number
        start = np.array([box[0].start, box[1].start])
        contours = [
            _contour(planes[box[2].start + k], corners + start, number_format, _TYPES[holes])
            for k, corners in outlines(inside, keyholes=holes == "keyhole")
        ]
        if contours:
            value = b"".join(contours)
            # As bytes: pydicom makes and writes each number on its own, which takes a hundred times as long.
            item[_CONTOUR_SEQUENCE] = RawDataElement(_CONTOUR_SEQUENCE, "SQ", len(value), value, 0, True, True)
        yield item


def _number_format(planes: Sequence[_Plane], shape: tuple[int, int, int], path: Path) -> str:
    """Format of a coordinate in mm, with as many decimals as the pixels' size asks for."""
    steps = np.array([plane.steps for plane in planes])
    decimals = max(math.ceil(-math.log10(ROUNDED_SHARE * np.linalg.norm(steps, axis=2).min())), 1)
    reach = np.abs(steps).sum(axis=1).max() * max(shape) + np.abs([plane.origin for plane in planes]).max()
    if len(f"-{reach:.{decimals}f}") > DS_LENGTH:
        raise ExportError(
            f"coordinates up to {reach:.6g} mm with {decimals} decimals, which these pixels need, are longer than the"
            f" {DS_LENGTH} characters of a number in DICOM",
            code="format",
            path=path,
        )
    return f"%.{decimals}f"


def _contour(plane: _Plane, corners: Floats, number_format: str, kind: bytes) -> bytes:
    """A contour as an item of the contour sequence."""
    points = plane.origin + corners @ plane.steps
    data = "\\".join([number_format] * points.size) % tuple(points.ravel().tolist())
    count = str(len(points))
    elements = (
        plane.image,
        _element(_TYPE, kind),
        _element(_POINTS, _padded(count)),
        _element(_DATA, _padded(data)),
    )
    return _element(_ITEM, b"".join(elements))


def _padded(words: str) -> bytes:
    return words.encode("ascii") + b" " * (len(words) % 2)


def _element(tag: BaseTag, value: bytes) -> bytes:
    """An element or an item in implicit little endian: explicit ends at 64 kB of numbers, a contour doesn't."""
    return struct.pack("<HHI", tag.group, tag.element, len(value)) + value


def _encoded(dataset: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR = stream.is_little_endian = True
    write_dataset(stream, dataset)
    return stream.getvalue()
