"""The header of a DICOM file: what it says, what kind of object it is, and whether it is all there.

A file is read up to its pixel data; whether those are complete is told by lengths, without reading them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from volseg.errors import InputError, RefusalError
from volseg.loaders import archive
from volseg.loaders.candidate import Ignored
from volseg.loaders.dicom.frame_scan import scan_frames
from volseg.loaders.dicom.frames import frame_values
from volseg.loaders.dicom.header_scan import Scan, scan
from volseg.loaders.dicom.mosaic import is_mosaic, tile_positions, tiles
from volseg.loaders.dicom.polarity import rows_reversed
from volseg.loaders.dicom.private import UIH_FRAMES
from volseg.loaders.dicom.sop_class import class_name, is_projection, kind_of_no_scan, references
from volseg.loaders.dicom.values import (
    FRAME_GROUPS,
    IDENTITY,
    SHARED_GROUPS,
    WANTED,
    dataset_values,
    numbers,
    texts,
    value_text,
)

#: What a file without its pixels has as its problem.
NO_PIXELS = "the file ends before its pixel data; copy it again"
#: Zeros behind the pixels that fill up a block, of a disk or of memory, are fewer than this.
BLOCK_BYTES = 4096
_UNDEFINED = 0xFFFFFFFF
#: A group whose first element starts a DICOM file without a preamble: file meta information, or the data set.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")


@dataclass(frozen=True)
class Header:
    """One DICOM image, as far as its pixels: a file, or one frame of a file.

    Attributes
    ----------
    values
        Values by keyword, as text: those that volseg looks at, of the data set and of the file meta information.
        Several values are separated by a backslash. A sequence is ``"1"`` where it isn't empty.
    problem
        Problem of the pixel data, such as that they are cut short; None where there is none.
    frames
        Attributes of each frame of a multi-frame file; empty elsewhere.
    frame
        Number of this frame in its file, or of this tile in its mosaic, from 0; None in a file of a single image.
    pixels
        Offset of the pixel data element in the file; None where the data set is deflated.
    """

    path: Path
    values: Mapping[str, str]
    problem: str | None = None
    frames: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    frame: int | None = None
    pixels: int | None = None

    def text(self, keyword: str) -> str:
        """Value as text, empty where it is absent or blank."""
        return self.values.get(keyword, "")

    def numbers(self, keyword: str, length: int) -> tuple[float, ...] | None:
        """`length` finite numbers, or None."""
        return numbers(self.values.get(keyword, ""), length)

    def integer(self, keyword: str) -> int | None:
        """Whole number, or None."""
        number = self.numbers(keyword, 1)
        return None if number is None else int(number[0])

    @property
    def sop_class_uid(self) -> str:
        """From the data set, else from the file meta information."""
        return self.text("SOPClassUID") or self.text("MediaStorageSOPClassUID")

    @property
    def sop_instance_uid(self) -> str:
        """From the data set, else from the file meta information."""
        return self.text("SOPInstanceUID") or self.text("MediaStorageSOPInstanceUID")

    @property
    def transfer_syntax(self) -> UID:
        """How the pixels are encoded."""
        return _uid(self.text("TransferSyntaxUID"))

    @property
    def blank_identity(self) -> list[str]:
        """Keywords of `IDENTITY` that are blank."""
        return [keyword for keyword in IDENTITY if not self.text(keyword)]

    @property
    def mosaic(self) -> bool:
        """Whether the image holds several slices side by side, or was cut from one that does."""
        return is_mosaic(self.values)

    @property
    def rows_reversed(self) -> bool | None:
        """Whether the rows are stored upside down; None where that can't be known."""
        return rows_reversed(self.values)

    def split(self) -> list[Header]:
        """Return the header of each frame, or of each tile of a mosaic, with what the file says of all of them.

        A single image's is itself, and so is that of a mosaic which doesn't say where its tiles lie.
        """
        parts: Sequence[Mapping[str, str]] = self.frames
        if self.mosaic and not parts:
            try:
                parts = tiles(self.values)
            except RefusalError:
                return [self]
        if not parts:
            return [self]
        return [
            replace(self, values={**self.values, **values}, frames=(), frame=index)
            for index, values in enumerate(parts)
        ]


_uid = lru_cache(maxsize=1 << 8)(UID)


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


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM by its first bytes, or claims to be by its name.

    Raises
    ------
    OSError
        The file can't be opened.
    """
    with archive.open_binary(path) as file:
        return _claims(file, path)


def _claims(file: BinaryIO, path: Path) -> bool:
    head = file.read(132)
    file.seek(0)
    return head[128:] == b"DICM" or _bare(head) or path.suffix.lower() == ".dcm"


def _bare(head: bytes) -> bool:
    """Whether a file without preamble may be DICOM: a low element of a first group, with a plausible length."""
    if head[:2] not in _FIRST_GROUPS or len(head) < 8:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") < 256


def read_header(path: Path) -> Header | Ignored | None:
    """Read one file up to its pixels.

    Returns
    -------
    Header, Ignored or None
        Ignored for an object that is no scan, with the UIDs of the series that it refers to; None for a file that
        doesn't claim to be DICOM.

    Raises
    ------
    InputError
        Code ``unreadable``: the file can't be opened, is damaged, or cut short before its pixels.
    """
    try:
        size = archive.size_of(path)
        with archive.open_binary(path) as file:
            if not _claims(file, path):
                return None
            return _scanned(path, file, size) or _parsed(path, file, size)
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", code="unreadable", path=path) from error
    except InputError:
        raise
    except Exception as error:
        # pydicom raises what it stumbles over; from a file made of junk that may be anything.
        why = " ".join(str(error).split())[:100]
        raise InputError(f"a damaged DICOM file ({why})", code="unreadable", path=path) from error


def _scanned(path: Path, file: BinaryIO, size: int) -> Header | Ignored | None:
    """The header of a plain image, the fast way; None for anything that takes more than that."""
    found = scan(file, size, WANTED)
    if found is None or found.pixels is None or UIH_FRAMES in found.elements:
        return None
    values = texts(found.elements, "<")
    header = Header(path, values)
    if kind_of_no_scan(header.sop_class_uid, values.get("ImageType", "")) is not None:
        return None
    if "SharedFunctionalGroupsSequence" in values or (header.integer("NumberOfFrames") or 1) > 1:
        frames = _scanned_frames(header, found)
        if frames is None:
            return None
        header = replace(header, frames=frames)
    file.seek(found.pixels)
    return replace(header, problem=_pixel_problem(file, header, size), pixels=found.pixels)


def _scanned_frames(header: Header, found: Scan) -> tuple[Mapping[str, str], ...] | None:
    """What each frame of an enhanced object says; None where that takes more than a look at the bytes."""
    if FRAME_GROUPS not in found.elements or is_projection(header.sop_class_uid):
        return None
    (said, shared), (also, each) = (found.elements.get(tag, ("", b"")) for tag in (SHARED_GROUPS, FRAME_GROUPS))
    if not {said, also} <= {"", "SQ"}:
        return None
    return scan_frames(shared, each, header.integer("NumberOfFrames") or 1, explicit=found.explicit, text=value_text)


def _parsed(path: Path, file: BinaryIO, size: int) -> Header | Ignored:
    """The header of any DICOM file, with pydicom."""
    file.seek(0)
    bare = file.read(132)[128:] != b"DICM"
    file.seek(0)
    # The wrapper has all that pydicom calls.
    dataset = pydicom.dcmread(cast(BinaryIO, _Bounded(file, size)), stop_before_pixels=True, force=bare)
    values = {**dataset_values(dataset), **tile_positions(dataset), "TransferSyntaxUID": transfer_syntax(dataset)}
    header = Header(path, values)
    if bare and not (header.text("Modality") or header.text("SOPClassUID")):
        raise InputError("not a DICOM file, whatever its name says", code="unreadable", path=path)
    kind = kind_of_no_scan(header.sop_class_uid, header.text("ImageType"))
    if kind is None:
        if header.transfer_syntax == DeflatedExplicitVRLittleEndian:
            # Unzipped as a whole: were it cut short in there, there would be an error by now.
            pixels, problem = None, None if "Rows" in dataset else NO_PIXELS
        else:
            pixels = file.tell()
            problem = _pixel_problem(file, header, size)
        if not _is_other_object(header, problem):
            # Of an image in projection they say nothing that would be read, and a slide's needn't be there.
            frames = () if is_projection(header.sop_class_uid) else frame_values(dataset)
            return replace(header, problem=problem, frames=frames, pixels=pixels)
        kind = f"{class_name(header.sop_class_uid).removesuffix(' Storage')}, no image"
    return Ignored(path, f"DICOM {kind}", refers_to=references(dataset))


class _Bounded:
    """A file that is never asked for more than it holds: it would reserve gigabytes where a length is damaged."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))


def _is_other_object(header: Header, problem: str | None) -> bool:
    """Whether it has no pixels because objects of its kind have none."""
    uid, name = header.sop_class_uid, class_name(header.sop_class_uid)
    # A UID that pydicom doesn't know is a vendor's if the file says it twice, else it may be cut short.
    known = name != uid or header.text("SOPClassUID") == header.text("MediaStorageSOPClassUID")
    return problem == NO_PIXELS and bool(uid) and known and "Image Storage" not in name


def _pixel_problem(file: BinaryIO, header: Header, size: int) -> str | None:
    """What is wrong with the pixel data at which `file` stands."""
    order: Literal["little", "big"] = "big" if header.text("TransferSyntaxUID") == ExplicitVRBigEndian else "little"
    head = file.read(8)
    if len(head) < 8 or int.from_bytes(head[:2], order) != 0x7FE0:
        return NO_PIXELS
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
    # Some writers fill up their last block; a whole row more is a size that isn't the image's, unless it is empty.
    more = length - needed
    if more >= max(needed // (pixels[0] * frames), 1) and more > 1 and not _only_zeros(file, needed, more):
        return f"{length} bytes of pixel data where Rows and Columns make {needed}: the image has another size"
    return None


def _only_zeros(file: BinaryIO, start: int, length: int) -> bool:
    """Whether `length` bytes from `start` on are zeros, and no more than fill up a block."""
    if length >= BLOCK_BYTES:
        return False
    file.seek(start, 1)
    return not any(file.read(length))


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
