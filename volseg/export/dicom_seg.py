"""A segmentation as DICOM SEG: binary, one segment a label, referring to the slices of the series it was made from.

Segments overlap where labels do.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import generate_uid
from pydicom.valuerep import DSfloat

from volseg import __version__
from volseg.errors import ExportError
from volseg.export.dicom_derived import complete_identity, series_number
from volseg.export.dicom_source import as_one_image, check_grid, read_headers, refer_to_frames
from volseg.export.terms import check_declared, private_code, text
from volseg.files import write_atomically
from volseg.geometry import Geometry
from volseg.loaders.dicom.quiet import quiet
from volseg.volume import Code, LabelVolume

#: Up to this size (bytes of pixel data) every segment has a frame on every slice. ITK takes frames to be evenly spaced
#: and misplaces those of a SEG that leaves some out; above, the size matters more.
FULL_FRAMES_BYTES = 64 * 2**20

Mask = npt.NDArray[np.unsignedinteger]


def write(label_volume: LabelVolume, path: Path) -> tuple[str, ...]:
    """Write `label_volume` to `path` as a binary DICOM SEG.

    Segments are numbered from 1 in the order of the labels, whether or not they occur: a label has the same number in
    every case. Frames lie on the positions that the source's headers give, ascending as its slices do. UIDs are made
    of the source's and of the mask: the same mask of the same scan gets the same ones.

    Returns
    -------
    tuple of str
        Notes on what the source's headers lack, which is therefore empty here.

    Raises
    ------
    ExportError
        Code ``no-source-series``: there is no DICOM series, or its files are gone. ``no-identity``: its UIDs are
        blank, or not those that were read. ``grid-mismatch``: its slices are not where the mask is. ``format``: no
        labels, a voxel that none declares, or a label that DICOM can't describe.
    """
    stream = io.BytesIO()
    quiet()
    headers = read_headers(label_volume, path)
    check_grid(label_volume, headers, path)
    pixels = _pixels(label_volume, path)
    segments = _segments(label_volume, path)
    try:
        notes = _fill_in(headers, _between_slices_mm(label_volume.geometry))
        segmentation = _segmentation(label_volume, headers, pixels, segments)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # What pydicom and highdicom raise for values in the source that they can't take over.
        raise ExportError(
            f"the source's header can't be referred to: {' '.join(str(error).split())}", code="format", path=path
        ) from error
    _order_frames(segmentation)
    segmentation.save_as(stream, enforce_file_format=True)
    write_atomically(path, stream.getvalue())
    return notes


def _between_slices_mm(geometry: Geometry) -> float:
    """Distance of neighbouring slices along their normal; where they are stacked at a tilt, their centres lie apart."""
    i, j, k = geometry.affine[:3, :3].T
    normal = np.cross(i, j)
    return round(abs(float(k @ normal)) / float(np.linalg.norm(normal)), 9)


def _fill_in(headers: Sequence[Dataset], between_slices_mm: float) -> tuple[str, ...]:
    """Make the headers what highdicom takes, in memory, and return a note for each value that is left empty."""
    first = headers[0]
    notes = complete_identity(first)
    # The distance is that of the positions: what files say of it is often the thickness.
    first.SpacingBetweenSlices = DSfloat(between_slices_mm, auto_format=True)
    first.SliceThickness = first.get("SliceThickness") or first.SpacingBetweenSlices
    for header in headers:
        # Loaders allow directions that differ in the last digits; a SEG has one orientation.
        header.ImageOrientationPatient = first.ImageOrientationPatient
        header.FrameOfReferenceUID = first.FrameOfReferenceUID
    return notes


def _pixels(label_volume: LabelVolume, path: Path) -> Mask:
    """What highdicom takes: segments' numbers [k, j, i], or where segments overlap, [k, j, i, segment] 0 or 1."""
    numbers = _segment_numbers(label_volume, path)
    if not label_volume.layers:
        return numbers
    check_declared(label_volume, path)
    pixels: Mask = np.empty((*numbers.shape, len(label_volume.labels)), np.uint8)
    for number, label in enumerate(label_volume.labels):
        pixels[..., number] = label_volume.voxels_of(label).transpose(2, 1, 0)
    return pixels


def _segment_numbers(label_volume: LabelVolume, path: Path) -> Mask:
    """The mask [k, j, i] with each label's value replaced by its place in the list of labels, from 1."""
    values = [label.value for label in label_volume.labels]
    if not values:
        raise ExportError("a SEG needs at least one label", code="format", path=path)
    undeclared = len(values) + 1
    numbers: Mask = np.full(values[-1] + 1, undeclared, dtype=np.min_scalar_type(undeclared))
    numbers[[0, *values]] = np.arange(len(values) + 1)
    mask_KJI = label_volume.array.transpose(2, 1, 0)
    if mask_KJI.max() <= values[-1]:
        numbered: Mask = numbers[mask_KJI]
        if numbered.max() < undeclared:
            return numbered
    raise ExportError("the mask has voxels whose value no label declares", code="format", path=path)


def _segments(label_volume: LabelVolume, path: Path) -> list[highdicom.seg.SegmentDescription]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=text(f"volseg {label_volume.algorithm}"), version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = []
    for number, label in enumerate(label_volume.labels, start=1):
        try:
            segment = highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=text(label.name),
                segmented_property_category=_concept(label.category),
                segmented_property_type=_concept(label.code or private_code(label)),
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                display_color=highdicom.color.CIELabColor.from_rgb(*label.colour),
            )
            segment.SegmentDescription = f"Value {label.value} in masks of other formats"
            if label.modifier is not None:
                modifier = highdicom.sr.CodedConcept.from_code(_concept(label.modifier))
                segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
        except ValueError as error:
            raise ExportError(f"label {label.name!r}: {error}", code="format", path=path) from error
        segments.append(segment)
    return segments


def _concept(code: Code) -> PydicomCode:
    return PydicomCode(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _segmentation(
    label_volume: LabelVolume,
    headers: Sequence[Dataset],
    pixels: Mask,
    segments: Sequence[highdicom.seg.SegmentDescription],
) -> highdicom.seg.Segmentation:
    first = headers[0]
    assert label_volume.source.dicom is not None  # or it would have no headers
    instances = label_volume.source.dicom.instances
    frames = [] if instances[0].frame is None else [str(instance.frame) for instance in instances]
    counts = [int(header.get("NumberOfFrames") or 1) for header in headers]
    seed = [first.SeriesInstanceUID, *(header.SOPInstanceUID for header in headers), repr(label_volume.labels), *frames]
    seed += [hashlib.sha256(pixels.tobytes()).hexdigest(), label_volume.algorithm, __version__]
    segmentation = highdicom.seg.Segmentation(
        source_images=[as_one_image(headers)] if frames else headers,
        pixel_array=pixels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(entropy_srcs=[*seed, "series"]),
        series_number=series_number(first, 1000),
        sop_instance_uid=generate_uid(entropy_srcs=[*seed, "instance"]),
        instance_number=1,
        manufacturer="volseg",
        manufacturer_model_name="volseg",
        software_versions=__version__,
        device_serial_number=__version__,
        omit_empty_frames=label_volume.array.size * len(segments) > 8 * FULL_FRAMES_BYTES,
        content_label="SEGMENTATION",
        content_description="Segmentation by volseg",
        series_description=text(f"volseg: {first.get('SeriesDescription') or 'segmentation'}"),
        # UTF-8: a label's name may need letters that the source's character set lacks.
        specific_character_set="ISO_IR 192",
    )
    if frames:
        refer_to_frames(segmentation, instances, counts)
    organization = generate_uid(entropy_srcs=[*seed, "dimensions"])
    for item in (*segmentation.DimensionIndexSequence, *segmentation.DimensionOrganizationSequence):
        item.DimensionOrganizationUID = organization
    return segmentation


def _order_frames(segmentation: highdicom.seg.Segmentation) -> None:
    """Order frames by segment, then ascending along the slices' normal, and number their dimension that way.

    highdicom stores slices against their normal. ITK then finds a grid that is upside down, or none.
    """
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    frames = segmentation.PerFrameFunctionalGroupsSequence
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    positions = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], dtype=float)
    along = positions @ np.cross(row, column)
    segments = [frame.FrameContentSequence[0].DimensionIndexValues[0] for frame in frames]
    places = np.unique(along, return_inverse=True)[1] + 1
    for frame, segment, place in zip(frames, segments, places, strict=True):
        frame.FrameContentSequence[0].DimensionIndexValues = [segment, int(place)]
    order = np.lexsort((along, segments))
    segmentation.PerFrameFunctionalGroupsSequence = [frames[index] for index in order]
    pixels = segmentation.Rows * segmentation.Columns
    packed = np.frombuffer(segmentation.PixelData, dtype=np.uint8)
    if pixels % 8 == 0:
        packed = packed[: len(frames) * pixels // 8].reshape(len(frames), -1)[order].ravel()
    else:
        # Frames share bytes: each follows the last bit of the one before.
        bits = np.unpackbits(packed, count=len(frames) * pixels, bitorder="little")
        packed = np.packbits(bits.reshape(len(frames), pixels)[order], bitorder="little")
    segmentation.PixelData = packed.tobytes() + b"\0" * (packed.size % 2)
