"""What a DICOM SEG says beside its pixels: patient, labels, references to its source, and each frame's place."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat

from volseg import __version__
from volseg.errors import ExportError
from volseg.export.dicom_derived import Uids, coded, complete_identity, derived_from, series_number
from volseg.export.dicom_multiframe import element, encoded, item, sequence
from volseg.export.dicom_source import check_grid, items, read_headers, reference
from volseg.export.terms import text, with_code
from volseg.geometry import Geometry
from volseg.loaders.dicom.quiet import quiet
from volseg.volume import Code, DicomSource, Instance, Label, LabelVolume

_DERIVATION = Code(value="113076", scheme="DCM", meaning="Segmentation")
_PURPOSE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")
_FAMILY = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")

_FRAME_CONTENT, _DIMENSION_VALUES = (0x0020, 0x9111), (0x0020, 0x9157)
_IDENTIFICATION, _SEGMENT_NUMBER = (0x0062, 0x000A), (0x0062, 0x000B)
_PLANE_POSITION, _POSITION = (0x0020, 0x9113), (0x0020, 0x0032)
_DERIVATION_IMAGE, _SOURCE_IMAGE = (0x0008, 0x9124), (0x0008, 0x2112)
_SOP_CLASS, _SOP_INSTANCE, _FRAME_NUMBER = (0x0008, 0x1150), (0x0008, 0x1155), (0x0008, 0x1160)

#: What DICOM's numbers from 0 to 65535 stand for, as far below 0 and as wide.
_LAB_LOWEST, _LAB_RANGE = np.array([0, 128, 128]), np.array([100, 255, 255])
#: CIELab's white point, D65, and the way from linear sRGB to XYZ (IEC 61966-2-1).
_WHITE = np.array([95.047, 100.0, 108.883]) / 100
_XYZ_FROM_RGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@dataclass(frozen=True)
class Begun:
    """A SEG of whose pixels nothing is said yet.

    Attributes
    ----------
    dataset
        All but what tells a kind of SEG from another, the frames' headers and the pixels.
    slices
        Headers of frames.
    notes
        Notes on what the source's headers lack, a sentence each.
    """

    dataset: Dataset
    slices: Slices
    notes: tuple[str, ...]


def begin(mask: LabelVolume, path: Path, kind: str, *, by_segment: bool) -> Begun:
    """Begin a SEG.

    Parameters
    ----------
    mask
        The segmentation; its labels are the segments.
    path
        File to be written, for messages.
    kind
        A word for the kind of SEG, which is a part of what its UIDs are made of.
    by_segment
        Whether a frame is of one segment.

    Raises
    ------
    ExportError
        As `volseg.export.dicom_seg.write`.
    """
    quiet()
    headers = read_headers(mask, path)
    check_grid(mask, headers, path)
    if not mask.labels:
        raise ExportError("a SEG needs at least one label", code="format", path=path)
    notes = complete_identity(headers[0])
    try:
        uids = Uids(mask, "seg", kind)
        dataset = segmentation(mask, headers, uids)
        add_dimensions(dataset, uids, by_segment=by_segment)
        return Begun(dataset, Slices(mask, headers), notes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # What pydicom raises for values in the source that it can't take over. It quotes them, names of patients too.
        raise ExportError(
            f"the source's header has a value, or lacks one, that a SEG would take over ({type(error).__name__}); write"
            " NIfTI, or export the series again",
            code="format",
            path=path,
        ) from error


def segmentation(mask: LabelVolume, headers: Sequence[Dataset], uids: Uids) -> Dataset:
    """All but what tells a kind of SEG from another, the frames' headers and the pixels.

    Parameters
    ----------
    mask
        The segmentation.
    headers
        Headers, from `read_headers`; of the first, `complete_identity` has seen patient and study.
    uids
        UIDs of the object.
    """
    first, now = headers[0], datetime.now()
    dicom = mask.source.dicom
    assert dicom is not None  # or it would have no headers
    dataset = derived_from(first)
    dataset.file_meta = FileMetaDataset()
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = uids.instance, uids.series
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "SEG", series_number(first, 1000), 1
    dataset.SeriesDescription = text(f"volseg: {first.get('SeriesDescription') or 'segmentation'}")
    dataset.Manufacturer = dataset.ManufacturerModelName = "volseg"
    dataset.DeviceSerialNumber = dataset.SoftwareVersions = __version__
    dataset.ContentLabel, dataset.ContentDescription = "SEGMENTATION", "Segmentation by volseg"
    dataset.ContentCreatorName = ""
    dataset.ContentDate, dataset.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.ContentDate, dataset.ContentTime
    dataset.FrameOfReferenceUID = dicom.frame_of_reference_uid
    dataset.PositionReferenceIndicator = str(first.get("PositionReferenceIndicator") or "")
    _refer(dataset, dicom, headers)
    _describe_pixels(dataset, first)
    dataset.SegmentsOverlap = "YES" if mask.layers else "NO"
    dataset.SegmentSequence = [
        _segment(number, label, mask.algorithm, uids) for number, label in enumerate(mask.labels, start=1)
    ]
    _place(dataset, first, mask.geometry)
    return dataset


def _refer(dataset: Dataset, dicom: DicomSource, headers: Sequence[Dataset]) -> None:
    """References to the images, and to the frames of those of which not all are the mask's."""
    frames: dict[tuple[str, str], list[int]] = defaultdict(list)
    whole = {}
    for instance, header in zip(dicom.instances, headers, strict=True):
        identity = (instance.sop_class_uid, instance.sop_instance_uid)
        frames[identity].append((instance.frame or 0) + 1)
        whole[identity] = int(header.get("NumberOfFrames") or 1)
    dataset.SourceImageSequence = [
        reference(*identity, sorted(numbers) if len(numbers) < whole[identity] else None)
        for identity, numbers in frames.items()
    ]
    dataset.ReferencedSeriesSequence = items(
        SeriesInstanceUID=dicom.series_uid,
        ReferencedInstanceSequence=[reference(*identity) for identity in frames],
    )


def _describe_pixels(dataset: Dataset, first: Dataset) -> None:
    dataset.Rows, dataset.Columns = first.Rows, first.Columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.LossyImageCompression = "00"
    if first.get("LossyImageCompression") == "01":
        # What is made of an image with losses has them.
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in first:
                setattr(dataset, keyword, first[keyword].value)


def _segment(number: int, label: Label, algorithm: str, uids: Uids) -> Dataset:
    name = text(f"volseg {algorithm}")
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel = number, text(label.name)
    segment.SegmentDescription = f"Value {label.value} in masks of other formats"
    segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", name
    segment.SegmentationAlgorithmIdentificationSequence = items(
        AlgorithmFamilyCodeSequence=[coded(_FAMILY)], AlgorithmName=name, AlgorithmVersion=__version__
    )
    known = with_code(label)
    assert known.code is not None
    segment.SegmentedPropertyCategoryCodeSequence = [coded(known.category)]
    kind = coded(known.code)
    if known.modifier is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(known.modifier)]
    segment.SegmentedPropertyTypeCodeSequence = [kind]
    segment.TrackingID, segment.TrackingUID = text(label.name), uids.of(f"region {number}")
    segment.RecommendedDisplayCIELabValue = lab_from_rgb(label.colour)
    return segment


def lab_from_rgb(colour: tuple[int, int, int]) -> list[int]:
    """DICOM's CIELab values (three numbers from 0 to 65535, PS3.3 C.10.7.1.1) of an sRGB colour, 0 to 255."""
    rgb = np.array(colour) / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    ratio = _XYZ_FROM_RGB @ linear / _WHITE
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    return [int(part) for part in np.rint(np.clip((lab + _LAB_LOWEST) / _LAB_RANGE, 0, 1) * 65535)]


def _place(dataset: Dataset, first: Dataset, geometry: Geometry) -> None:
    """Directions and distances that all frames share."""
    # The distance is that of the positions: what files say of it is often the thickness.
    apart = DSfloat(_between_slices_mm(geometry), auto_format=True)
    measures = items(
        SliceThickness=first.get("SliceThickness") or apart,
        SpacingBetweenSlices=apart,
        PixelSpacing=first.PixelSpacing,
    )
    # Loaders allow directions that differ in the last digits; a SEG has one orientation.
    orientation = items(ImageOrientationPatient=first.ImageOrientationPatient)
    dataset.SharedFunctionalGroupsSequence = items(PlaneOrientationSequence=orientation, PixelMeasuresSequence=measures)


def _between_slices_mm(geometry: Geometry) -> float:
    """Distance of neighbouring slices along their normal; where they are stacked at a tilt, their centres lie apart."""
    i, j, k = geometry.affine[:3, :3].T
    normal = np.cross(i, j)
    return round(abs(float(k @ normal)) / float(np.linalg.norm(normal)), 9)


def add_dimensions(dataset: Dataset, uids: Uids, *, by_segment: bool) -> None:
    """Say what the numbers in each frame's header count: segments, where they do, and places along the slices."""
    organization = uids.of("dimensions")
    dataset.DimensionOrganizationSequence = items(DimensionOrganizationUID=organization)
    segments = (_SEGMENT_NUMBER, _IDENTIFICATION, "Referenced Segment Number")
    places = (_POSITION, _PLANE_POSITION, "Image Position Patient")
    dataset.DimensionIndexSequence = [
        items(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=Tag(pointer),
            FunctionalGroupPointer=Tag(group),
            DimensionDescriptionLabel=label,
        )[0]
        for pointer, group, label in ([segments, places] if by_segment else [places])
    ]


class Slices:
    """Headers of frames: what is the same in all frames of a slice is encoded once.

    Parameters
    ----------
    mask, headers
        Mask and headers, as for `segmentation`.
    """

    def __init__(self, mask: LabelVolume, headers: Sequence[Dataset]) -> None:
        dicom = mask.source.dicom
        assert dicom is not None
        common = Dataset()
        common.SpatialLocationsPreserved, common.PurposeOfReferenceCodeSequence = "YES", [coded(_PURPOSE)]
        derived = Dataset()
        derived.DerivationCodeSequence = [coded(_DERIVATION)]
        ends = encoded(common), encoded(derived)
        self._derivations = [_derivation(instance, *ends) for instance in dicom.instances]
        self._positions = [_position(header) for header in headers]

    def frame(self, k: int, segment: int | None = None) -> bytes:
        """The header of a frame on slice `k`, of a segment where a frame has one."""
        numbers = [k + 1] if segment is None else [segment, k + 1]
        values = element(_DIMENSION_VALUES, b"UL", struct.pack(f"<{len(numbers)}I", *numbers))
        parts = [self._derivations[k], sequence(_FRAME_CONTENT, values), self._positions[k]]
        if segment is not None:
            parts.append(sequence(_IDENTIFICATION, element(_SEGMENT_NUMBER, b"US", struct.pack("<H", segment))))
        return item(parts)


def _derivation(instance: Instance, common: bytes, derived: bytes) -> bytes:
    """The sequence that refers to a source image: what differs, then what is the same for all images."""
    parts = [
        element(_SOP_CLASS, b"UI", _even(instance.sop_class_uid, "\0")),
        element(_SOP_INSTANCE, b"UI", _even(instance.sop_instance_uid, "\0")),
    ]
    if instance.frame is not None:
        parts.append(element(_FRAME_NUMBER, b"IS", _even(str(instance.frame + 1))))
    return sequence(_DERIVATION_IMAGE, sequence(_SOURCE_IMAGE, b"".join([*parts, common])) + derived)


def _position(header: Dataset) -> bytes:
    values = "\\".join(str(value) for value in header.ImagePositionPatient)
    return sequence(_PLANE_POSITION, element(_POSITION, b"DS", _even(values)))


def _even(words: str, filler: str = " ") -> bytes:
    """A value of even length."""
    return (words + filler * (len(words) % 2)).encode("ascii")
