"""DICOM files to series: headers only, with pydicom. The voxels are read by `dicom_pixels`.

A file is read up to its pixel data; whether that is all there is told by its length, without reading it.
"""

from __future__ import annotations

import filecmp
import hashlib
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from volseg.config import canonical_modality
from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import Geometry
from volseg.loaders.candidate import Candidate, Ignored, count, digest8, safe_name
from volseg.loaders.stack import Plane, stack_planes

#: Longest part of a case name that is the series description.
DESCRIPTION_LENGTH = 40

#: What may tell images at one position apart, for the message.
_DISTINGUISHING = (
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "ImageType",
    "ConvolutionKernel",
    "AcquisitionTime",
    "ContentTime",
    "InstanceNumber",
)
#: What is read of a header.
TAGS = (
    *_DISTINGUISHING,
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "ImagesInAcquisition",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
)
#: UIDs without which a DICOM object can't refer to a series.
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")

_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Classes of objects with pixels that are no scan.
_NO_SCAN = {
    **{f"{_STORAGE}7{end}": "secondary capture (a screenshot)" for end in ("", ".1", ".2", ".3", ".4")},
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.7": "segmentation",
    f"{_STORAGE}30": "parametric map",
    f"{_STORAGE}481.2": "radiotherapy dose",
}
_MODALITIES = {"2": "CT", "4": "MR", "128": "PT"}
_UNDEFINED = 0xFFFFFFFF
#: A group whose first element starts a DICOM file without a preamble: file meta information, or the data set.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")


@dataclass(frozen=True)
class Header:
    """One DICOM image file, as far as its pixels.

    Attributes
    ----------
    dataset
        The elements that volseg looks at.
    problem
        What is wrong with the pixel data, such as that they are cut short; None where nothing is.
    """

    path: Path
    dataset: Dataset
    problem: str | None = None

    def text(self, keyword: str) -> str:
        """Value as text, empty where it is absent, blank or damaged."""
        return element_text(self.dataset, keyword)

    def meta(self, keyword: str) -> str:
        """The same of an element of the file meta information."""
        return element_text(self.dataset.file_meta, keyword)

    def numbers(self, keyword: str, length: int) -> tuple[float, ...] | None:
        """`length` finite numbers, or None."""
        try:
            value = self.dataset.get(keyword)
            numbers = tuple(float(item) for item in (value if length > 1 else [value]))
        except (TypeError, ValueError, OverflowError):
            return None
        return numbers if len(numbers) == length and all(map(math.isfinite, numbers)) else None

    def integer(self, keyword: str) -> int | None:
        """Whole number, or None."""
        number = self.numbers(keyword, 1)
        return None if number is None else int(number[0])

    @property
    def sop_class_uid(self) -> str:
        """From the data set, else from the file meta information."""
        return self.text("SOPClassUID") or self.meta("MediaStorageSOPClassUID")

    @property
    def sop_instance_uid(self) -> str:
        """From the data set, else from the file meta information."""
        return self.text("SOPInstanceUID") or self.meta("MediaStorageSOPInstanceUID")

    @property
    def transfer_syntax(self) -> UID:
        """How the pixels are encoded."""
        return transfer_syntax(self.dataset)


def element_text(dataset: Dataset, keyword: str) -> str:
    """Value of an element as text, empty where it is absent, blank or damaged."""
    try:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip(" \0")
    except (TypeError, ValueError, LookupError, OverflowError, NotImplementedError):
        return ""


def transfer_syntax(dataset: Dataset) -> UID:
    """Transfer syntax of a data set that was read; that of its bytes where the file doesn't say."""
    said = element_text(dataset.file_meta, "TransferSyntaxUID")
    if said:
        return UID(said)
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


@contextmanager
def tolerant() -> Iterator[None]:
    """Read what is there: pydicom's warnings on values that break a rule are nothing for a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM by its first bytes, or claims to be by its name.

    Raises
    ------
    OSError
        The file can't be opened.
    """
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or _bare(head) or path.suffix.lower() == ".dcm"


def _bare(head: bytes) -> bool:
    """Whether a file without preamble may be DICOM: a low element of a first group, with a plausible length."""
    if head[:2] not in _FIRST_GROUPS or len(head) < 8:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") < 256


def read_header(path: Path) -> Header | Ignored:
    """Read one file up to its pixels.

    Raises
    ------
    InputError
        Code ``unreadable``: the file is not DICOM, or damaged, or cut short before its pixels.
    """
    try:
        with tolerant(), path.open("rb") as file:
            bare = file.read(132)[128:] != b"DICM"
            file.seek(0)
            header = Header(path, pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS), force=bare))
            if bare and not (header.text("Modality") or header.text("SOPClassUID")):
                raise InputError("not a DICOM file, whatever its name says", code="unreadable", path=path)
            if header.transfer_syntax == DeflatedExplicitVRLittleEndian:
                # Unzipped as a whole: were it cut short in there, there would be an error by now.
                problem = None if "Rows" in header.dataset else _NO_PIXELS
            else:
                problem = _pixel_problem(file, header)
            kind = _kind_of_no_scan(header, problem)
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", code="unreadable", path=path) from error
    except InputError:
        raise
    except Exception as error:
        # pydicom raises what it stumbles over; from a file made of junk that may be anything.
        why = " ".join(str(error).split())[:100]
        raise InputError(f"a damaged DICOM file ({why})", code="unreadable", path=path) from error
    return replace(header, problem=problem) if kind is None else Ignored(path, kind)


_NO_PIXELS = "the file ends before its pixel data; copy it again"


def _kind_of_no_scan(header: Header, problem: str | None) -> str | None:
    """Say what an object is that is no scan, or None."""
    uid = UID(header.sop_class_uid)
    if uid in _NO_SCAN:
        return f"DICOM {_NO_SCAN[uid]}, no scan"
    if "LOCALIZER" in header.text("ImageType").upper():
        return "DICOM localizer, no scan"
    # A UID that pydicom doesn't know is a vendor's if the file says it twice, else it may be cut short.
    known = uid.name != uid or header.text("SOPClassUID") == header.meta("MediaStorageSOPClassUID")
    if problem == _NO_PIXELS and uid and known and "Image Storage" not in uid.name:
        return f"DICOM {uid.name.removesuffix(' Storage')}, no image"
    return None


def _pixel_problem(file: BinaryIO, header: Header) -> str | None:
    """What is wrong with the pixel data at which `file` stands."""
    order: Literal["little", "big"] = "big" if header.transfer_syntax == ExplicitVRBigEndian else "little"
    size = os.fstat(file.fileno()).st_size
    head = file.read(8)
    if len(head) < 8 or int.from_bytes(head[:2], order) != 0x7FE0:
        return _NO_PIXELS
    # By the bytes and not by the transfer syntax, which some files get wrong.
    length = int.from_bytes(file.read(4) if head[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN") else head[4:], order)
    if length == _UNDEFINED:
        return None if _items_end(file, size) else "the compressed pixel data are cut short; copy the file again"
    pixels = [header.integer(keyword) or 0 for keyword in ("Rows", "Columns", "BitsAllocated")]
    frames, samples = (header.integer(keyword) or 1 for keyword in ("NumberOfFrames", "SamplesPerPixel"))
    needed = math.prod(pixels) * frames * samples // 8
    held = min(length, size - file.tell())
    if needed == 0:
        return "rows, columns or bits are not said"
    if held < min(needed, length) or length < needed:
        return f"the pixel data are cut short: {held} of {needed} bytes are there; copy the file again"
    return None


def _items_end(file: BinaryIO, size: int) -> bool:
    """Whether the items of encapsulated pixel data go on to their delimiter."""
    while len(head := file.read(8)) == 8:
        if head[:4] == b"\xfe\xff\xdd\xe0":
            return True
        end = file.tell() + int.from_bytes(head[4:], "little")
        if head[:4] != b"\xfe\xff\x00\xe0" or end > size:
            return False
        file.seek(end)
    return False


def group_series(headers: Iterable[Header]) -> list[list[Header]]:
    """Headers by series, in an order that doesn't depend on that of the files.

    Where the series UID is blank, one folder's files that agree on everything else that a series shares are one.
    """
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        shared = [header.text(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")]
        if not shared[1]:
            shared += [
                str(header.path.parent),
                *(
                    header.text(keyword)
                    for keyword in ("Modality", "SeriesNumber", "SeriesDescription", "FrameOfReferenceUID")
                ),
            ]
        series[tuple(shared)].append(header)
    return [series[key] for key in sorted(series)]


def describe(headers: Sequence[Header]) -> tuple[Candidate, list[Ignored]]:
    """Candidate from the files of one series, and the copies among them that are left out."""
    kept, copies = _without_copies(headers)
    notes = [f"{count(len(copies), 'file')} that are copies of others were left out"] if copies else []
    geometry, refused = None, None
    try:
        _check_pixels(kept)
        stack = stack_planes(_planes(kept))
        kept = [kept[index] for index in stack.order]
        geometry = stack.geometry
        notes += [*stack.notes, *_hints(kept)]
    except RefusalError as error:
        refused = error
    notes += identity_notes([header.dataset for header in kept])
    return _candidate(kept, geometry, refused, notes), copies


def _candidate(
    headers: Sequence[Header], geometry: Geometry | None, refused: RefusalError | None, notes: list[str]
) -> Candidate:
    first = headers[0]
    modality = canonical_modality(first.text("Modality")) or _MODALITIES.get(
        first.sop_class_uid.removeprefix(_STORAGE).split(".")[0]
    )
    number = first.integer("SeriesNumber")
    description = first.text("SeriesDescription")
    series_uid = first.text("SeriesInstanceUID")
    paths = tuple(header.path for header in headers)
    parts = (
        safe_name(modality or ""),
        "x" if number is None else str(number),
        safe_name(description, DESCRIPTION_LENGTH),
        digest8([series_uid] if series_uid else sorted(_instance_ids(headers))),
    )
    return Candidate(
        name="-".join(parts),
        kind="dicom",
        modality=modality,
        description=description,
        path=Path(os.path.commonpath([path.parent for path in paths])) if len(paths) > 1 else paths[0],
        files=paths,
        series_uid=series_uid or None,
        series_number=number,
        geometry=geometry,
        channels=1,
        usable=refused is None,
        reason=refused.reason if refused else None,
        code=refused.code if refused else None,
        notes=tuple(notes),
    )


def damaged(path: Path, error: RefusalError) -> Candidate:
    """Candidate from a file that claims to be DICOM and can't be read."""
    return Candidate(
        name=safe_name(path.name),
        kind="dicom",
        modality=None,
        description=path.name,
        path=path,
        files=(path,),
        series_uid=None,
        series_number=None,
        geometry=None,
        channels=1,
        usable=False,
        reason=error.reason,
        code=error.code,
    )


def _instance_ids(headers: Sequence[Header]) -> list[str]:
    """SOP instance UIDs, or where there are none at all, what the files hold."""
    return [header.sop_instance_uid or hashlib.sha256(header.path.read_bytes()).hexdigest() for header in headers]


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Ignored]]:
    """Leave out files that are byte for byte the same as another of the same instance UID."""
    kept: list[Header] = []
    copies: list[Ignored] = []
    seen: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda header: header.path):
        alike = seen[header.sop_instance_uid, header.text("ImagePositionPatient")]
        original = next((other for other in alike if filecmp.cmp(other.path, header.path, shallow=False)), None)
        if original is None:
            alike.append(header)
            kept.append(header)
        else:
            copies.append(Ignored(header.path, f"a copy of {original.path.name}"))
    return kept, copies


def _check_pixels(headers: Sequence[Header]) -> None:
    """Refuse what makes no volume, whatever its geometry."""
    for header in headers:
        name = header.path.name
        if header.problem:
            raise InputError(f"{name}: {header.problem}", code="unreadable")
        if (header.integer("SamplesPerPixel") or 1) != 1 or not (
            header.text("PhotometricInterpretation") or "MONOCHROME2"
        ).startswith("MONOCHROME"):
            raise InputError(f"{name}: colour pixels; a scan has one number a voxel", code="not-scalar")
        class_name = UID(header.sop_class_uid).name
        if (header.integer("NumberOfFrames") or 1) > 1 or "Enhanced" in class_name:
            raise InputError(
                f"{name}: a multi-frame object ({class_name}); convert it to one file a slice", code="unsupported"
            )
        if header.integer("BitsAllocated") not in (8, 16, 32):
            raise InputError(f"{name}: {header.text('BitsAllocated') or 'no'} bits a pixel", code="unsupported")
        if "ModalityLUTSequence" in header.dataset:
            raise InputError(f"{name}: values through a modality look-up table", code="unsupported")
        if not _decodable(header.transfer_syntax):
            raise InputError(
                f"{name}: no codec for {header.transfer_syntax.name}; decompress the files first", code="unsupported"
            )
    if len(headers) < 2:
        raise GeometryError("a single slice; give the folder that holds the whole series", code="not-3d")


def _decodable(syntax: UID) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _planes(headers: Sequence[Header]) -> list[Plane]:
    planes = []
    for header in headers:
        position = header.numbers("ImagePositionPatient", 3)
        directions = header.numbers("ImageOrientationPatient", 6)
        spacing = header.numbers("PixelSpacing", 2)
        rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
        given = {
            "ImagePositionPatient": position,
            "ImageOrientationPatient": directions,
            "PixelSpacing": spacing if spacing and min(spacing) > 0 else None,
        }
        if position is None or directions is None or given["PixelSpacing"] is None or spacing is None:
            absent = " and no ".join(keyword for keyword, value in given.items() if value is None)
            raise GeometryError(
                f"{header.path.name} has no valid {absent}; export the series anew from its source",
                code="missing-geometry",
            )
        planes.append(
            Plane(
                name=header.path.name,
                position=position,
                row=directions[:3],
                column=directions[3:],
                spacing_mm=(spacing[1], spacing[0]),
                size=(columns, rows),
                frame=header.text("FrameOfReferenceUID"),
                tags={keyword: header.text(keyword) for keyword in _DISTINGUISHING},
            )
        )
    return planes


def _hints(headers: Sequence[Header]) -> list[str]:
    """Notes where the files hint at slices that are absent at an end, which geometry can't show."""
    notes = []
    promised = max((header.integer("ImagesInAcquisition") or 0 for header in headers), default=0)
    if promised > len(headers):
        notes.append(
            f"ImagesInAcquisition says {promised} and {count(len(headers), 'slice')} are there: slices may be absent"
            " at an end"
        )
    numbers = sorted(number for header in headers if (number := header.integer("InstanceNumber")) is not None)
    if numbers and (numbers[0] > 1 or numbers[-1] - numbers[0] + 1 > len(headers)):
        notes.append(
            f"InstanceNumber goes from {numbers[0]} to {numbers[-1]} for {count(len(headers), 'slice')}: slices may be"
            " absent at an end"
        )
    if any(header.text("PhotometricInterpretation") == "MONOCHROME1" for header in headers):
        notes.append("MONOCHROME1: low values are shown bright; the values are kept as stored")
    return notes


def blank_identity(datasets: Iterable[Dataset]) -> list[str]:
    """Keywords of `IDENTITY` that are blank in any of the data sets."""
    datasets = list(datasets)
    return [keyword for keyword in IDENTITY if any(not element_text(dataset, keyword) for dataset in datasets)]


def identity_notes(datasets: Sequence[Dataset]) -> list[str]:
    """The note to give where UIDs are blank."""
    blank = blank_identity(datasets)
    if not blank:
        return []
    kept = all(element_text(dataset.file_meta, "MediaStorageSOPInstanceUID") for dataset in datasets)
    held = "; class and instance are taken from the file meta information" if kept and "SOPInstanceUID" in blank else ""
    return [f"blank in the files: {', '.join(blank)}{held}. DICOM objects can't refer to such a series (--repair-uids)"]
