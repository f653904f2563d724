"""The pixel data element of a DICOM file: the bytes of each frame, one after another."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
import pydicom
from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from volseg.errors import InputError
from volseg.loaders.dicom.codecs import NATIVE, Layout
from volseg.loaders.dicom.header import Header

_PIXEL_DATA = 0x0010
_FLOATS = {0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData"}
_LONG = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Frame:
    """Bytes of one frame.

    Attributes
    ----------
    compressed
        Whether its bytes are a compressed image; else they are rows of cells.
    order
        Order of the bytes in a cell, as numpy has it.
    """

    content: bytes
    compressed: bool
    order: Literal["<", ">"] = "<"


def frames(file: BinaryIO, header: Header, layout: Layout) -> Iterator[Frame]:
    """All frames of an open file, in their order.

    Raises
    ------
    InputError
        ``unreadable`` where frames are absent, ``unsupported`` for pixels that are floating-point numbers.
    """
    count = header.integer("NumberOfFrames") or 1
    size = layout.rows * layout.columns * layout.allocated // 8
    if header.transfer_syntax == DeflatedExplicitVRLittleEndian:
        yield from _cells(_inflated(file, header), size, count, "<", header)
        return
    if header.pixels is None:
        raise InputError("the file ends before its pixel data; copy it again", code="unreadable", path=header.path)
    file.seek(header.pixels)
    order: Literal["<", ">"] = ">" if header.transfer_syntax == ExplicitVRBigEndian else "<"
    representation, length = _head(file, order, header)
    if length != _UNDEFINED:
        # By the bytes and not by the transfer syntax, which some files get wrong.
        if header.transfer_syntax not in NATIVE and length not in (size * count, size * count + 1):
            raise InputError(
                f"pixel data that should be compressed ({header.transfer_syntax.name}) and aren't",
                code="unreadable",
                path=header.path,
            )
        # In words of 16 bits, the first of two 8-bit pixels is the lower byte, whatever the order.
        if order == ">" and layout.allocated == 8 and representation == b"OW":
            words = np.frombuffer(file.read(length // 2 * 2), ">u2")
            file, order = io.BytesIO(words.astype("<u2").tobytes()), "<"
        yield from _cells(file, size, count, order, header)
    elif header.transfer_syntax in NATIVE:
        raise InputError(
            f"compressed pixel data, and a transfer syntax ({header.transfer_syntax.name}) that says they aren't",
            code="unreadable",
            path=header.path,
        )
    else:
        yield from _compressed(file, count, header)


def _inflated(file: BinaryIO, header: Header) -> BinaryIO:
    """The pixel data of a file that is deflated as a whole."""
    file.seek(0)
    try:
        return io.BytesIO(pydicom.dcmread(file).get("PixelData") or b"")
    except Exception as error:
        # pydicom raises what it stumbles over.
        raise InputError(f"a damaged DICOM file ({error})", code="unreadable", path=header.path) from error


def _head(file: BinaryIO, order: Literal["<", ">"], header: Header) -> tuple[bytes, int]:
    """Value representation (junk in implicit encoding) and length of the element at which `file` stands."""
    name: Literal["little", "big"] = "little" if order == "<" else "big"
    head = file.read(8)
    element = int.from_bytes(head[2:4], name)
    if element in _FLOATS:
        raise InputError(
            f"{_FLOATS[element]}: pixels that are floating-point numbers; convert the series to NIfTI",
            code="unsupported",
            path=header.path,
        )
    if int.from_bytes(head[:2], name) != 0x7FE0 or element != _PIXEL_DATA:
        raise InputError("changed since it was found", code="unreadable", path=header.path)
    representation = head[4:6]
    return representation, int.from_bytes(file.read(4) if representation in _LONG else head[4:], name)


def _cells(file: BinaryIO, size: int, count: int, order: Literal["<", ">"], header: Header) -> Iterator[Frame]:
    for index in range(count):
        content = file.read(size)
        if len(content) < size:
            raise InputError(
                f"the pixel data are cut short in frame {index + 1} of {count}; copy the file again",
                code="unreadable",
                path=header.path,
            )
        yield Frame(content, compressed=False, order=order)


def _compressed(file: BinaryIO, count: int, header: Header) -> Iterator[Frame]:
    held = 0
    try:
        if count == 1:
            # Whatever the table of offsets says.
            parse_basic_offsets(file)
            contents: Iterator[bytes] = iter([b"".join(generate_fragments(file))])
        else:
            # An extended table of offsets stands for one fragment a frame, which is found without it.
            contents = generate_frames(file, number_of_frames=count)
        for held, content in enumerate(contents, start=1):  # noqa: B007
            yield Frame(content, compressed=True)
    except Exception as error:
        # pydicom raises what it stumbles over.
        why = " ".join(str(error).split())[:120]
        raise InputError(f"damaged pixel data ({why}); copy the file again", code="unreadable", path=header.path) from (
            error
        )
    if held != count:
        raise InputError(
            f"{held} of {count} frames are there; copy the file again", code="unreadable", path=header.path
        )
