"""The elements of a DICOM header that volseg looks at, read in one pass over the first bytes of a file.

pydicom builds every element of a header, which takes a millisecond or three a file: a minute for a folder of a PACS
export. This walks from element to element and keeps the bytes of the few that count. It knows well-formed little-endian
data sets alone and gives up on anything else, for pydicom to read: it never decides that a file is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

#: How much of a file is read at first, and by how much more when its header is longer.
FIRST_BYTES = 1 << 15
MORE = 32
#: Longest header that is walked.
LONGEST_HEADER = 1 << 25
#: Sequences inside sequences that are walked.
DEEPEST = 16

_UNDEFINED = 0xFFFFFFFF
#: So many elements that nothing is wanted of are passed over as one where another file has the same.
RUN = 8
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_FIRST_PIXELS = 0x7FE00008
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_SYNTAX = 0x00020010
#: Value representations whose length has four bytes, behind two that are unused, and the others.
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS")
) | frozenset((b"ST", b"TM", b"UI", b"UL", b"US"))
_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_IMPLICIT = struct.Struct("<HHL").unpack_from
_LENGTH = struct.Struct("<L").unpack_from
#: The same with the tag's four bytes as one number, and what these are of the marks of sequences.
_MARK = struct.Struct("<LL").unpack_from
_SHORT_MARK = struct.Struct("<L2sH").unpack_from
_ITEM_MARK, _ITEM_END_MARK, _SEQUENCE_END_MARK = 0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE


@dataclass(frozen=True)
class Scan:
    """What was found.

    Attributes
    ----------
    elements
        Elements by tag: the value representation (empty in implicit encoding) and the bytes.
    pixels
        Offset of the pixel data element in the file, None where the header ends without one.
    explicit
        Whether elements state their value representation.
    """

    elements: Mapping[int, tuple[str, bytes]]
    pixels: int | None
    explicit: bool


_NAMES = {b"": "", **{vr: vr.decode() for vr in _LONG | _SHORT}}
#: Bytes of elements that nothing is wanted of, and the last one's tag, by the tag before them and the encoding. The
#: files of a series share most of their header: the same bytes at the same place are the same elements.
_RUNS: dict[tuple[int, bool], tuple[bytes, int]] = {}


class OddError(Exception):
    """Not what this reads."""


class ShortError(Exception):
    """The header goes on behind the bytes that were read."""


def scan(file: BinaryIO, size: int, wanted: frozenset[int]) -> Scan | None:
    """Elements of a file with a preamble.

    Parameters
    ----------
    file
        The file, at its start.
    size
        Size of the file, in bytes.
    wanted
        Tags to keep, as numbers.

    Returns
    -------
    Scan or None
        None where the file isn't a well-formed little-endian one.
    """
    data = file.read(FIRST_BYTES)
    while True:
        try:
            return _file(data, wanted, whole=len(data) >= size)
        except ShortError:
            if len(data) >= min(size, LONGEST_HEADER):
                return None
            data += file.read((MORE - 1) * len(data))
        except (OddError, struct.error, RecursionError):
            return None


def _file(data: bytes, wanted: frozenset[int], *, whole: bool) -> Scan:
    if data[128:132] != b"DICM":
        raise OddError
    elements: dict[int, tuple[str, bytes]] = {}
    start, _ = _walk(data, 132, wanted | {_SYNTAX}, elements, explicit=True, whole=whole, group=0x0002)
    syntax = elements.get(_SYNTAX, ("", b""))[1].rstrip(b" \0").decode("ascii", "replace")
    if syntax in ("", DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        raise OddError
    explicit = syntax != ImplicitVRLittleEndian
    if not explicit and data[start + 4 : start + 6] in _SHORT | _LONG:
        # It says implicit and isn't: pydicom finds out.
        raise OddError
    _, pixels = _walk(data, start, wanted, elements, explicit=explicit, whole=whole, group=None)
    return Scan(elements, pixels, explicit)


def _walk(  # noqa: C901 (one loop over the bytes: calls would cost more than the work)
    data: bytes,
    start: int,
    wanted: frozenset[int],
    elements: dict[int, tuple[str, bytes]],
    *,
    explicit: bool,
    whole: bool,
    group: int | None,
) -> tuple[int, int | None]:
    """Walk top-level elements, those of `group` alone if it is given; where they end, and where pixel data start."""
    position, end, last = start, len(data), 0
    passed, passed_from, passed_after = 0, start, 0
    while position + 12 <= end:
        if not passed:
            run = _RUNS.get((passed_after := last, explicit)) if group is None else None
            if run is not None and data.startswith(run[0], position):
                position, last = position + len(run[0]), run[1]
                continue
            passed_from = position
        head = position
        if explicit:
            high, low, vr, length = _EXPLICIT(data, position)
            if group is not None and high != group:
                return head, None
            if vr in _LONG:
                (length,) = _LENGTH(data, position + 8)
                position += 12
            elif vr in _SHORT:
                position += 8
            else:
                raise OddError
        else:
            high, low, length = _IMPLICIT(data, position)
            vr = b""
            position += 8
        tag = high << 16 | low
        if tag <= last or tag >= _FIRST_PIXELS:
            if tag in _PIXELS:
                return head, head
            # Tags ascend in a well-formed file; groups behind the pixel data hold nothing that counts.
            raise OddError
        if length == _UNDEFINED:
            after = skip_items(data, position, explicit=explicit and vr != b"UN", depth=0)
        else:
            after = position + length
            if after > end:
                raise ShortError
        if tag in wanted:
            elements[tag] = (_NAMES[vr], data[position:after])
            if passed > 1:
                _RUNS[passed_after, explicit] = (data[passed_from:head], last)
            passed = 0
        else:
            passed += 1
            if passed == RUN:
                _RUNS[passed_after, explicit] = (data[passed_from:after], tag)
                passed = 0
        last = tag
        position = after
    if position == end and whole:
        return position, None
    raise ShortError


def skip_items(data: bytes, position: int, *, explicit: bool, depth: int) -> int:  # noqa: C901 (as above)
    """Offset behind the items of a sequence of undefined length.

    One loop for all that is inside each other, because scanners nest thousands of elements in a frame. `level` is even
    between the items of a sequence and odd among the elements of an item; what states its length is jumped over.
    """
    level = 2 * depth
    first = level
    try:
        while True:
            if level > 2 * DEEPEST:
                raise OddError
            if not level & 1:
                mark, length = _MARK(data, position)
                position += 8
                if mark == _ITEM_MARK and length == _UNDEFINED:
                    level += 1
                elif mark == _ITEM_MARK:
                    position += length
                elif mark != _SEQUENCE_END_MARK:
                    raise OddError
                elif level == first:
                    return position
                else:
                    level -= 1
                continue
            mark, vr, length = _SHORT_MARK(data, position)
            if mark == _ITEM_END_MARK:
                position += 8
                level -= 1
                continue
            if not explicit:
                vr, (length,) = b"", _LENGTH(data, position + 4)
                position += 8
            elif vr in _SHORT:
                position += 8 + length
                continue
            elif vr in _LONG:
                (length,) = _LENGTH(data, position + 8)
                position += 12
            else:
                raise OddError
            if length != _UNDEFINED:
                position += length
            elif vr == b"UN":
                position = skip_items(data, position, explicit=False, depth=level // 2 + 1)
            else:
                level += 1
    except struct.error as error:
        raise ShortError from error


def element(data: bytes, position: int, *, explicit: bool) -> tuple[int, bytes, int, int | None]:
    """Tag, value representation (empty if implicit), offset of the value and its length (None if undefined)."""
    if position + 8 > len(data):
        raise ShortError
    high, low, length = _IMPLICIT(data, position)
    tag = high << 16 | low
    if tag in (ITEM, ITEM_END, SEQUENCE_END):
        return tag, b"", position + 8, None if length == _UNDEFINED else length
    vr = data[position + 4 : position + 6] if explicit else b""
    position += 8
    if explicit and vr in _LONG:
        if position + 4 > len(data):
            raise ShortError
        (length,) = _LENGTH(data, position)
        position += 4
    elif explicit:
        if vr not in _SHORT:
            raise OddError
        length >>= 16
    return tag, vr, position, None if length == _UNDEFINED else length
