"""What the functional groups of an enhanced object say of each frame, read from their bytes.

The same as `volseg.loaders.dicom.frames` has by pydicom, which builds every element: scanners nest thousands of private
sequences in their frames, and an object would take seconds. As `header_scan`, this knows well-formed little-endian
data alone, and gives up on anything else.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping

from pydicom.datadict import dictionary_VR, tag_for_keyword

from volseg.loaders.dicom.frames import DIRECTION, DIRECTIONS, GROUPS, MOST_FRAMES
from volseg.loaders.dicom.header_scan import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    OddError,
    ShortError,
    element,
    skip_items,
)

#: Makes a text of a value representation and bytes.
_Text = Callable[[str, bytes], str]
#: Where an element's value is: its value representation, and from where to where.
_Places = dict[int, tuple[bytes, int, int]]


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


_GROUPS = {
    _tag(group): {_tag(theirs): (ours, dictionary_VR(theirs)[:2]) for theirs, ours in keywords.items()}
    for group, keywords in GROUPS.items()
}
_GROUP_TAGS = frozenset(_GROUPS)
_DIFFUSION, _DIRECTIONS, _DIRECTION = _tag("MRDiffusionSequence"), _tag(DIRECTIONS), _tag(DIRECTION)


def scan_frames(
    shared: bytes, per_frame: bytes, count: int, *, explicit: bool, text: _Text
) -> tuple[Mapping[str, str], ...] | None:
    """What each frame says, as texts by classic keyword.

    Parameters
    ----------
    shared, per_frame
        Values of the two sequences of functional groups, as `header_scan.scan` gives them.
    count
        Number of frames that the object states.
    explicit
        Whether elements state their value representation.
    text
        Makes a text of a value representation and bytes.

    Returns
    -------
    tuple of Mapping or None
        None where the bytes aren't well-formed, or hold another number of frames.
    """
    reader = _Groups(explicit, text)
    try:
        common = next(reader.of_items(shared), {})
        frames = []
        for values in reader.of_items(per_frame):
            frames.append({**common, **values})
            if len(frames) > min(count, MOST_FRAMES):
                return None
    except (OddError, ShortError, struct.error, RecursionError):
        return None
    return tuple(frames) if len(frames) == count else None


class _Groups:
    """Reads items of functional groups; a group whose bytes are those of another frame's is read once."""

    def __init__(self, explicit: bool, text: _Text) -> None:
        self._explicit, self._text = explicit, text
        self._known: dict[tuple[int, bytes], dict[str, str]] = {}

    def of_items(self, data: bytes) -> Iterator[dict[str, str]]:
        for places in self._items(data, _GROUP_TAGS):
            values: dict[str, str] = {}
            # In the order of the groups, of which a later one comes first.
            for group in _GROUPS:
                if group in places:
                    values |= self._group(group, places[group], data)
            yield values

    def _group(self, group: int, place: tuple[bytes, int, int], data: bytes) -> dict[str, str]:
        vr, start, end = place
        if vr not in (b"", b"SQ"):
            raise OddError
        key = group, data[start:end]
        if key not in self._known:
            self._known[key] = self._values(group, key[1])
        return self._known[key]

    def _values(self, group: int, data: bytes) -> dict[str, str]:
        keywords = _GROUPS[group]
        values: dict[str, str] = {}
        for places in itertools.islice(self._items(data, frozenset((*keywords, _DIRECTIONS))), 1):
            for tag, (ours, vr) in keywords.items():
                if tag in places and (said := self._said(places[tag], vr, data)):
                    values[ours] = said
            if group == _DIFFUSION and _DIRECTIONS in places:
                stated, first, last = places[_DIRECTIONS]
                if stated not in (b"", b"SQ"):
                    raise OddError
                values |= self._direction(data[first:last])
        return values

    def _direction(self, data: bytes) -> dict[str, str]:
        for places in self._items(data, frozenset((_DIRECTION,))):
            return {DIRECTION: self._said(places[_DIRECTION], "FD", data) if _DIRECTION in places else ""}
        return {}

    def _said(self, place: tuple[bytes, int, int], vr: str, data: bytes) -> str:
        stated, start, end = place
        return self._text(vr if stated in (b"", b"UN") else stated.decode(), data[start:end])

    def _items(self, data: bytes, wanted: frozenset[int]) -> Iterator[_Places]:
        """Where the wanted elements of each item of a sequence are."""
        position = 0
        while position < len(data):
            tag, _, start, length = element(data, position, explicit=self._explicit)
            if tag == SEQUENCE_END:
                return
            if tag != ITEM:
                raise OddError
            places, position = self._places(data, start, None if length is None else start + length, wanted)
            yield places

    def _places(self, data: bytes, position: int, end: int | None, wanted: frozenset[int]) -> tuple[_Places, int]:
        """Where the wanted elements of an item are, and where it ends; `end` is None where it doesn't say."""
        places: _Places = {}
        while position != end:
            tag, vr, first, length = element(data, position, explicit=self._explicit)
            if tag == ITEM_END and end is None:
                return places, first
            if length is None:
                position = skip_items(data, first, explicit=self._explicit and vr != b"UN", depth=0)
            else:
                position = first + length
            if position > (len(data) if end is None else end):
                raise ShortError
            if tag in wanted:
                places[tag] = vr, first, position
        return places, position
