"""NRRD files: ``.nrrd``, and ``.nhdr`` with the voxels in another file; geometry from the header's space.

Read without a library: SimpleITK takes a missing orientation for the identity and doesn't say so, and drops the space
of a fourth axis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from volseg.errors import GeometryError, InputError
from volseg.geometry import Floats, Geometry, ras_from_lps
from volseg.loaders import archive
from volseg.loaders.formats.voxel_file import Format, Layout, volume_axes
from volseg.loaders.packing import Packing, file_beside, read_errors, text_lines

_TYPES = {
    name: code
    for code, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_PACKINGS: dict[str, Packing] = {"raw": "raw", "gz": "gzip", "gzip": "gzip"}
#: Spaces whose axes are directions of the body, by the name of the directions in which their axes grow.
_SPACES = {
    "right-anterior-superior": "RAS",
    "ras": "RAS",
    "left-anterior-superior": "LAS",
    "las": "LAS",
    "left-posterior-superior": "LPS",
    "lps": "LPS",
}
#: Kinds of an axis along which each number stands for itself: those in space, and channels. The others are colours,
#: complex numbers, directions and tensors.
_SCALAR_KINDS = {"domain", "space", "time", "list", "point", "vector", "scalar", "stub", "none", "???", "unknown"}
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres"}
_VECTOR = re.compile(r"\s*(none|\([^()]*\))", re.IGNORECASE)


def layout(path: Path) -> Layout:
    """What the header of a NRRD file says.

    Raises
    ------
    InputError
        Codes ``unreadable``, ``unsupported`` and ``not-scalar``.
    GeometryError
        Codes ``missing-geometry``, ``not-3d`` and ``bad-affine``.
    """
    with archive.open_binary(path) as file:
        fields, pairs, complete = _fields(file)
        begin = file.tell()
    sizes = _sizes(fields)
    vectors = _vectors(fields, len(sizes))
    spatial = [axis for axis, vector in enumerate(vectors) if vector is not None]
    more = [axis for axis, size in enumerate(sizes) if axis not in spatial and size != 1]
    shape, channels = volume_axes([sizes[axis] for axis in [*spatial, *more]])
    geometry = Geometry(shape, _affine(fields, [vector for vector in vectors if vector is not None]))
    dtype, packing, data = _dtype(fields), _packing(fields), path
    if "datafile" in fields:
        data, begin = _data_file(path, fields["datafile"]), 0
    elif not complete:
        raise InputError("the header has no end (an empty line), or the file is cut short", code="unreadable")
    start, before = _skips(fields, data, begin, packing, math.prod(sizes) * dtype.itemsize)
    notes = ["the axes are not perpendicular (the directions are sheared)"] if geometry.sheared else []
    return Layout(
        geometry=geometry,
        dtype=dtype,
        data=data,
        start=start,
        packing=packing,
        before=before,
        channels=channels,
        channel_axis=sum(axis < more[0] for axis in spatial) if more else 3,
        notes=(*notes, *_segments(pairs)),
    )


def _fields(file: BinaryIO) -> tuple[dict[str, str], dict[str, str], bool]:
    """Fields by their names in lower case without spaces, key/value pairs, and whether an empty line ends them."""
    lines = text_lines(file)
    if not re.fullmatch(r"NRRD000\d", next(lines, "")):
        raise InputError("no NRRD header: not a NRRD file, or a damaged one", code="unreadable")
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in lines:
        if not line:
            return fields, pairs, True
        name, colon, value = line.partition(":")
        if line.startswith("#"):
            continue
        if value.startswith("="):
            pairs[name] = value[1:]
            continue
        name = name.lower().replace(" ", "")
        if not colon or name in fields:
            raise InputError(f"the NRRD header is damaged at {line[:80]!r}", code="unreadable")
        fields[name] = value.strip()
    return fields, pairs, False


def _field(fields: dict[str, str], name: str) -> str:
    if name not in fields:
        raise InputError(f"the NRRD header is damaged: it has no {name!r}", code="unreadable")
    return fields[name]


def _integers(fields: dict[str, str], name: str, count: int | None = None) -> list[int]:
    text = _field(fields, name)
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError as error:
        raise InputError(f"the NRRD header is damaged: {name} {text[:80]!r}", code="unreadable") from error
    if count is not None and len(numbers) != count:
        raise InputError(f"the NRRD header is damaged: {name} {text[:80]!r}", code="unreadable")
    return numbers


def _sizes(fields: dict[str, str]) -> list[int]:
    """Length of each axis, the fastest first, of an image that has three or more and holds scalars."""
    sizes = _integers(fields, "sizes")
    if [len(sizes)] != _integers(fields, "dimension"):
        raise InputError(
            f"the NRRD header is damaged: {len(sizes)} sizes, dimension {fields['dimension'][:80]!r}", code="unreadable"
        )
    kinds = fields.get("kinds", "").split()
    for kind, size in zip(kinds, sizes, strict=False):
        if size != 1 and kind.lower() not in _SCALAR_KINDS:
            raise InputError(
                f"{size} numbers of the kind {kind[:80]!r} a voxel (colour, complex or directions); a scan has one",
                code="not-scalar",
            )
    if len(sizes) < 3:
        volume_axes(sizes)  # refuses it
    return sizes


def _vectors(fields: dict[str, str], dimension: int) -> list[list[float] | None]:
    """Step in space along each axis, None for those that don't lie in space."""
    for name in ("space", "space directions", "space origin"):
        if name.replace(" ", "") not in fields:
            raise GeometryError(
                f"the header has no {name!r}: where the voxels are in the body isn't stated, and what other programs"
                " take instead may be wrong; convert the original scan, or add the line where you know it",
                code="missing-geometry",
            )
    text = fields["spacedirections"]
    words = _VECTOR.findall(text)
    if len(words) != dimension or _VECTOR.sub("", text).strip():
        raise GeometryError(
            f"the space directions {text[:120]!r} are not a vector or 'none' for each of {dimension} axes",
            code="bad-affine",
        )
    return [None if word.lower() == "none" else _numbers(word) for word in words]


def _numbers(text: str) -> list[float]:
    """Numbers of a vector, ``(1,0,0)``."""
    try:
        return [float(word) for word in text.strip("() ").split(",")]
    except ValueError as error:
        raise GeometryError(f"the vector {text[:80]!r} is damaged", code="bad-affine") from error


def _affine(fields: dict[str, str], vectors: list[list[float]]) -> Floats:
    """Affine to RAS+ from the steps along the axes in space."""
    space = _SPACES.get(fields["space"].lower())
    if space is None:
        raise GeometryError(
            f"the space {fields['space'][:80]!r} doesn't name three directions of the body; needed is"
            " left-posterior-superior, right-anterior-superior or left-anterior-superior",
            code="missing-geometry",
        )
    units = fields.get("spaceunits", "").replace('"', " ").lower().split()
    if other := [unit for unit in units if unit not in _MILLIMETRES]:
        raise GeometryError(f"the geometry is in {other[0]!r}, not in millimetres; write it in mm", code="bad-affine")
    origin = _numbers(fields["spaceorigin"])
    if len(vectors) != 3 or any(len(vector) != 3 for vector in [*vectors, origin]):
        raise GeometryError(
            f"{len(vectors)} axes in space; needed are three, and three numbers for the step along each and the origin",
            code="not-3d" if len(vectors) < 3 else "bad-affine",
        )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.transpose(vectors), origin
    if space == "LPS":
        return ras_from_lps(affine)
    # LAS is not LPS: only its first axis points the other way than that of RAS.
    return affine if space == "RAS" else affine * np.array([[-1.0], [1], [1], [1]]) + 0.0


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    name = _field(fields, "type").lower()
    if name not in _TYPES:
        raise InputError(f"voxels of type {name[:80]!r}; needed are integers or floats", code="unsupported")
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize == 1:
        return dtype
    order = _field(fields, "endian").lower()
    if order not in ("little", "big"):
        raise InputError(f"the NRRD header is damaged: endian {order[:80]!r}", code="unreadable")
    return dtype.newbyteorder("<" if order == "little" else ">")


def _packing(fields: dict[str, str]) -> Packing:
    encoding = _field(fields, "encoding").lower()
    if encoding not in _PACKINGS:
        raise InputError(f"the encoding {encoding[:80]!r}; save it as raw or gzip", code="unsupported")
    return _PACKINGS[encoding]


def _data_file(header: Path, name: str) -> Path:
    if name.split(maxsplit=1)[:1] == ["LIST"] or re.search(r"%\d*d", name):
        raise InputError("the voxels are spread over several files; save them as one", code="unsupported")
    return file_beside(header, name)


def _skips(fields: dict[str, str], data: Path, begin: int, packing: Packing, needed: int) -> tuple[int, int]:
    """Bytes before the (compressed) content, and bytes of content before the voxels."""
    skips = {"lineskip": "0", "byteskip": "0"} | fields
    (lines,), (bytes_,) = _integers(skips, "lineskip", 1), _integers(skips, "byteskip", 1)
    if lines < 0 or bytes_ < (-1 if packing == "raw" else 0):
        raise InputError(f"the NRRD header is damaged: skips of {lines} and {bytes_}", code="unreadable")
    if bytes_ == -1:  # the voxels are what the file ends with
        return max(0, archive.size_of(data) - needed), 0
    with archive.open_binary(data) as file:
        file.seek(begin)
        for _ in range(lines):
            if not file.readline():
                raise EOFError
        return file.tell(), bytes_


@dataclass(frozen=True)
class Segment:
    """A structure of a segmentation that 3D Slicer wrote: its value in its layer, name, and colour, 0 to 1."""

    value: int
    layer: int
    name: str
    colour: tuple[float, float, float] | None


def segments(path: Path) -> tuple[Segment, ...]:
    """Structures that the header of a NRRD file names, in its order; none of another image.

    Raises
    ------
    InputError
        Code ``unreadable``.
    """
    with read_errors(), archive.open_binary(path) as file:
        return tuple(_named(_fields(file)[1]))


def _named(pairs: dict[str, str]) -> Iterator[Segment]:
    for number in range(len(pairs)):
        key = f"Segment{number}_"
        if (name := pairs.get(f"{key}Name")) is None:
            return
        value, layer = pairs.get(f"{key}LabelValue", ""), pairs.get(f"{key}Layer", "")
        # Files of before layers have neither: one after another, or a layer each.
        yield Segment(
            int(value) if value.isdecimal() else number + 1,
            int(layer) if layer.isdecimal() else 0,
            name,
            _colour(pairs.get(f"{key}Color", "")),
        )


def _colour(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (min(max(float(word), 0.0), 1.0) for word in text.split())
    except ValueError:
        return None
    return red, green, blue


def _segments(pairs: dict[str, str]) -> list[str]:
    """Note on the labels of a segmentation that 3D Slicer wrote."""
    names = [f"{segment.value} is {segment.name}" for segment in _named(pairs)]
    return [f"a segmentation of 3D Slicer: {', '.join(names)}"] if names else []


NRRD = Format(kind="nrrd", endings=(".nrrd", ".nhdr"), layout=layout)
