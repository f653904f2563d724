"""The header of a DICOM file, with pydicom: what it says, what kind of object it is, and whether it is all there.

A file is read up to its pixel data; whether those are complete is told by lengths, without reading them.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator
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

from volseg.errors import InputError
from volseg.loaders.candidate import Ignored

#: What may tell images at one position apart, for the message.
DISTINGUISHING = (
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
    *DISTINGUISHING,
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

#: What the UIDs of storage classes start with.
STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Classes of objects with pixels that are no scan.
_NO_SCAN = {
    **{f"{STORAGE}7{end}": "secondary capture (a screenshot)" for end in ("", ".1", ".2", ".3", ".4")},
    f"{STORAGE}66.4": "segmentation",
    f"{STORAGE}66.7": "segmentation",
    f"{STORAGE}30": "parametric map",
    f"{STORAGE}481.2": "radiotherapy dose",
}
#: What a file without its pixels has as its problem.
_NO_PIXELS = "the file ends before its pixel data; copy it again"
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


def blank_identity(datasets: Iterable[Dataset]) -> list[str]:
    """Keywords of `IDENTITY` that are blank in any of the data sets."""
    datasets = list(datasets)
    return [keyword for keyword in IDENTITY if any(not element_text(dataset, keyword) for dataset in datasets)]


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
    if held < needed:
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
