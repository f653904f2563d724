"""Siemens' CSA header: named values in a block of bytes, which DICOM knows nothing of.

The layout is the one that SPM and nibabel describe for headers that start with ``SV10`` (software since VB): a count of
entries; each entry has a name, and items of a length and that many bytes, filled up to four.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_START = b"SV10"
#: Name, number of values, value representation, a type that is syngo's own, number of items, and a mark.
_ENTRY = struct.Struct("<64si4s3i")
_ITEM = struct.Struct("<4i")
_FIRST_ENTRY = 16
_MOST = 1000


def csa_values(raw: bytes, names: frozenset[str]) -> dict[str, str]:
    """Values of the entries in `names`, several separated by a backslash; nothing of a header that is damaged."""
    try:
        return {name: text for name, text in _entries(raw) if name in names and text}
    except (struct.error, ValueError):
        return {}


def _entries(raw: bytes) -> Iterator[tuple[str, str]]:
    if raw[:4] != _START:
        raise ValueError("no CSA header of a known kind")
    (count,) = struct.unpack_from("<I", raw, 8)
    position = _FIRST_ENTRY
    for _ in range(min(count, _MOST)):
        name, _, _, _, items, _ = _ENTRY.unpack_from(raw, position)
        position += _ENTRY.size
        values = []
        for _ in range(_within(items, _MOST)):
            (_, length, _, _) = _ITEM.unpack_from(raw, position)
            start = position + _ITEM.size
            position = start + -(-_within(length, len(raw) - start) // 4) * 4
            values.append(_text(raw[start : start + length]))
        yield _text(name), "\\".join(filter(None, values))


def _within(number: int, most: int) -> int:
    if not 0 <= number <= most:
        raise ValueError(f"{number} where at most {most} can be")
    return number


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("latin-1").strip()
