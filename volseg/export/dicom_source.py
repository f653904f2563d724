"""The images that a DICOM object refers to: headers read again, held against the mask, and references to frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from volseg.errors import ExportError
from volseg.geometry import Floats, ras_from_lps
from volseg.loaders import archive
from volseg.loaders.dicom.frames import frame_values
from volseg.loaders.dicom.stack import EVENED_MM
from volseg.volume import DicomSource, Instance, LabelVolume

#: A pixel of the source may be this far from its voxel, in mm: loaders even out positions, and slices whose directions
#: differ in the last digits.
SLICE_MM = 2 * EVENED_MM

_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
#: What a frame's header takes over from its file, and what from the frame's functional groups.
_OF_FILE = ("SOPInstanceUID", "FrameOfReferenceUID", "NumberOfFrames", "Rows", "Columns")
_OF_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


def read_headers(mask: LabelVolume, path: Path) -> list[Dataset]:
    """Headers of the source's slices in the order of k, checked to be the images that were read.

    Each file is read once, up to its pixels. A frame of a multi-frame object has the attributes of a single image: its
    place, its size and its identity; the first one has the rest of its file's as well.

    Parameters
    ----------
    path
        File of the object to be written, for messages.

    Raises
    ------
    ExportError
        Code ``no-source-series``: there is no DICOM series, or its files are gone. ``no-identity``: its UIDs are
        blank, or not those that were read. ``format``: single images and frames, mixed; tiles of mosaics, or rows
        that were stored upside down.
    """
    source = mask.source
    dicom = source.dicom
    if dicom is None:
        raise ExportError(
            "a DICOM object refers to the images of a DICOM series, and this scan comes from none; write NIfTI,"
            " or name the series that it belongs to",
            code="no-source-series",
            path=path,
        )
    if not (dicom.identity and dicom.study_uid and dicom.series_uid and dicom.frame_of_reference_uid):
        raise ExportError(
            "the source has blank UIDs, so that a DICOM object can't refer to it; --repair-uids writes a copy that"
            " has UIDs",
            code="no-identity",
            path=source.path,
        )
    if len({instance.frame is None for instance in dicom.instances}) > 1:
        raise ExportError(
            "slices are both files of their own and frames of other files; write NIfTI, or convert the series",
            code="format",
            path=path,
        )
    if not all(instance.as_stored for instance in dicom.instances):
        raise ExportError(
            "slices are tiles of mosaics, or were stored upside down: an object that refers to their pixels would be"
            " shown elsewhere; write NIfTI",
            code="format",
            path=path,
        )
    files = {instance.path: instance for instance in dicom.instances}
    headers = {file: _header(dicom, instance, path) for file, instance in files.items()}
    if dicom.instances[0].frame is None:
        return [headers[instance.path] for instance in dicom.instances]
    return _frame_headers(dicom, headers, path)


def _header(dicom: DicomSource, instance: Instance, path: Path) -> Dataset:
    try:
        with archive.open_binary(instance.path) as file:
            # Files without a preamble are read as well; the UIDs say whether this is the image.
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except Exception as error:
        # pydicom raises what it stumbles over; from a file that was overwritten that may be anything.
        why = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ExportError(f"{instance.path} can't be read again: {why}", code="no-source-series", path=path) from error
    found = (header.get("StudyInstanceUID"), header.get("SeriesInstanceUID"), header.get("SOPInstanceUID"))
    if found != (dicom.study_uid, dicom.series_uid, instance.sop_instance_uid):
        raise _changed(instance, path)
    return header


def _changed(instance: Instance, path: Path) -> ExportError:
    return ExportError(
        f"{instance.path} is no longer the image {instance.sop_instance_uid} that was segmented",
        code="no-identity",
        path=path,
    )


def _frame_headers(dicom: DicomSource, headers: dict[Path, Dataset], path: Path) -> list[Dataset]:
    """A header for each frame: of the first, all that its file says, of the others what differs."""
    frames = []
    values: dict[Path, tuple[Mapping[str, str], ...]] = {}
    for instance in dicom.instances:
        header = headers[instance.path]
        try:
            if instance.path not in values:
                values[instance.path] = frame_values(header)
            frames.append(_frame_header(header, values[instance.path][instance.frame or 0]))
        except (AttributeError, LookupError, ValueError) as error:
            raise _changed(instance, path) from error
    first = headers[dicom.instances[0].path]
    for keyword in _FUNCTIONAL_GROUPS:
        if keyword in first:
            delattr(first, keyword)
    first.update(frames[0])
    return [first, *frames[1:]]


def _frame_header(header: Dataset, values: Mapping[str, str]) -> Dataset:
    frame = Dataset()
    for keyword in _OF_FILE:
        setattr(frame, keyword, header[keyword].value)
    for keyword in _OF_PLANE:
        # Some files hold numbers that are longer than DICOM allows.
        setattr(frame, keyword, [DSfloat(text, auto_format=True) for text in values[keyword].split("\\")])
    if values.get("SliceThickness"):
        frame.SliceThickness = DSfloat(values["SliceThickness"], auto_format=True)
    return frame


def check_grid(mask: LabelVolume, headers: Sequence[Dataset], path: Path) -> None:
    """Refuse a mask whose voxels are not where the source's pixels are.

    Two affine maps of a rectangle differ most at one of its corners, and three of them decide about the fourth.

    Raises
    ------
    ExportError
        Code ``grid-mismatch``.
    """
    columns, rows, slices = mask.geometry.shape
    if len(headers) != slices:
        raise ExportError(
            f"the mask has {slices} slices and the series {len(headers)} images", code="grid-mismatch", path=path
        )
    corners = np.array([(0, 0), (columns - 1, 0), (0, rows - 1)])
    for k, header in enumerate(headers):
        if (header.Columns, header.Rows) != (columns, rows):
            raise ExportError(
                f"the mask's slices have {columns} x {rows} voxels and the series' {header.Columns} x {header.Rows}",
                code="grid-mismatch",
                path=path,
            )
        ours = mask.geometry.voxel_to_world([(i, j, k) for i, j in corners])
        apart = np.linalg.norm(ours - _pixel_positions(header, corners), axis=1).max()
        if apart > SLICE_MM:
            raise ExportError(
                f"slice {k} of the mask lies {apart:.3g} mm off its image in the series",
                code="grid-mismatch",
                path=path,
            )


def _pixel_positions(header: Dataset, pixels: npt.NDArray[np.integer]) -> Floats:
    """(N, 3) RAS+ mm of the pixels (N, 2) [column, row]."""
    origin, steps = plane_of(header)
    return ras_from_lps(origin + pixels @ steps)


def plane_of(header: Dataset) -> tuple[Floats, Floats]:
    """Where an image's pixels are, by PS3.3 C.7.6.2.1.1, in LPS+ mm.

    Returns
    -------
    origin
        (3,) centre of the first pixel.
    steps
        (2, 3) from a pixel to the next along a row, and to the next along a column.
    """
    directions = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    between_rows, between_columns = (float(size) for size in header.PixelSpacing)
    origin = np.array(header.ImagePositionPatient, dtype=np.float64)
    return origin, directions * np.array([[between_columns], [between_rows]])


def reference(sop_class_uid: str, sop_instance_uid: str, frames: int | Sequence[int] | None = None) -> Dataset:
    """An item that refers to an image, or to frames of it, from 1."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if frames is not None:
        item.ReferencedFrameNumber = frames
    return item


def items(**values: object) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]
