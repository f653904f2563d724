"""MetaImage files: ``.mha``, and ``.mhd`` with the voxels in another file; read without a library.

ITK's own reader takes a missing spacing for 1 mm and a missing orientation for the identity and doesn't say so; here
they are refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from volseg.errors import GeometryError, InputError
from volseg.geometry import ORIENTATIONS, Floats, Geometry, ras_from_lps
from volseg.loaders import archive
from volseg.loaders.formats.voxel_file import Format, Layout, volume_axes
from volseg.loaders.packing import Packing, file_beside, text_lines

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # four bytes on every machine
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}


def layout(path: Path) -> Layout:
    """What the header of a MetaImage file says.

    Raises
    ------
    InputError
        Codes ``unreadable``, ``unsupported`` and ``not-scalar``.
    GeometryError
        Codes ``missing-geometry``, ``not-3d`` and ``bad-affine``.
    """
    with archive.open_binary(path) as file:
        fields = _fields(file)
        begin = file.tell()
    sizes = _sizes(fields)
    shape, channels = volume_axes(sizes)
    geometry = Geometry(shape, _affine(fields, len(sizes)))
    dtype, notes = _dtype(fields)
    data, start, packing = _place(path, fields, begin, math.prod(sizes) * dtype.itemsize)
    slope, intercept = _scale(fields)
    if (slope, intercept) != (1, 0):
        notes.append(f"voxels are scaled by ElementToIntensityFunction, {slope:g} x + {intercept:g}; ITK doesn't do it")
    return Layout(
        geometry=geometry,
        dtype=dtype,
        data=data,
        start=start,
        packing=packing,
        channels=channels,
        slope=slope,
        intercept=intercept,
        modality=_MODALITIES.get(fields.get("Modality", "")),
        notes=(*_geometry_notes(fields, geometry), *notes),
    )


def _fields(file: BinaryIO) -> dict[str, str]:
    """Fields by name, up to the last one, which says where the voxels are."""
    fields: dict[str, str] = {}
    for line in text_lines(file):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not name:
            continue
        if not equals or name in fields:
            break
        fields[name] = value
        if name == "ElementDataFile":
            return fields
    what = "the MetaImage header is damaged or cut short" if "NDims" in fields else "no MetaImage header"
    raise InputError(f"{what}: no ElementDataFile; not a MetaImage file, or a damaged one", code="unreadable")


def _numbers(fields: dict[str, str], name: str, count: int, default: str | None = None) -> list[float]:
    text = fields.get(name, default)
    try:
        numbers = [float(word) for word in (text or "").split()]
    except ValueError as error:
        raise InputError(f"the MetaImage header is damaged: {name} is {text!r}", code="unreadable") from error
    if len(numbers) != count:
        raise InputError(f"the MetaImage header is damaged: {name} is {text!r}, not {count} numbers", code="unreadable")
    return numbers


def _integer(fields: dict[str, str], name: str, default: str | None = None) -> int:
    (number,) = _numbers(fields, name, 1, default)
    if not number.is_integer():
        raise InputError(f"the MetaImage header is damaged: {name} is {number}", code="unreadable")
    return int(number)


def _true(fields: dict[str, str], name: str, default: str) -> bool:
    """Whether a switch is on; the first letter decides."""
    return fields.get(name, default)[:1] in ("T", "t", "1")


def _sizes(fields: dict[str, str]) -> list[int]:
    """Length of each axis, the fastest first, of an image with one number a voxel."""
    if fields.get("ObjectType", "Image") != "Image":
        raise InputError(f"a MetaIO object of type {fields['ObjectType']!r}, no image", code="unsupported")
    numbers = _numbers(fields, "DimSize", _integer(fields, "NDims"))
    if not all(number.is_integer() for number in numbers):
        raise InputError(f"the MetaImage header is damaged: DimSize is {fields['DimSize']!r}", code="unreadable")
    if (channels := _integer(fields, "ElementNumberOfChannels", "1")) != 1:
        raise InputError(
            f"{channels} numbers a voxel (colour, or a vector); a scan has one. Channels are read from a fourth axis"
            " (SimpleITK.JoinSeries) or from a file each",
            code="not-scalar",
        )
    return [int(number) for number in numbers]


def _one_of(fields: dict[str, str], names: tuple[str, ...], count: int) -> list[float]:
    """Numbers of a field that has several names."""
    given = [name for name in names if name in fields]
    if not given:
        raise GeometryError(
            f"the header has no {names[0]}: where the voxels are in the body isn't stated, and what other programs take"
            " instead may be wrong; convert the original scan, or add the line where you know it",
            code="missing-geometry",
        )
    values = [_numbers(fields, name, count) for name in given]
    if any(value != values[0] for value in values):
        raise GeometryError(f"{' and '.join(given)} contradict each other; leave only the right one", code="bad-affine")
    return values[0]


def _affine(fields: dict[str, str], dimensions: int) -> Floats:
    """Affine to RAS+. CenterOfRotation has no part in it: ITK's images turn about their first voxel.

    The matrix's first numbers are the direction of the first axis, and so on: its rows are the columns of the affine.
    """
    unit = fields.get("DistanceUnits", "mm")
    if unit not in ("mm", "?"):
        raise GeometryError(f"the geometry is in {unit!r}, not in millimetres; write it in mm", code="bad-affine")
    rows = _one_of(fields, ("TransformMatrix", "Rotation", "Orientation"), dimensions**2)
    matrix = np.array(rows).reshape(dimensions, dimensions)
    offset = _one_of(fields, ("Offset", "Position", "Origin"), dimensions)
    # Where there is no spacing ITK takes the size of a voxel instead.
    spacing = _one_of(fields, ("ElementSpacing",) if "ElementSpacing" in fields else ("ElementSize",), dimensions)
    if matrix[:3, 3:].any() or matrix[3:, :3].any():
        raise GeometryError("a fourth axis that isn't apart from the three in space", code="bad-affine")
    affine = np.eye(4)
    with np.errstate(all="ignore"):  # what comes of damaged numbers is refused
        affine[:3, :3], affine[:3, 3] = matrix[:3, :3].T * spacing[:3], offset[:3]
    return ras_from_lps(affine)


def _geometry_notes(fields: dict[str, str], geometry: Geometry) -> list[str]:
    """Note what is unusual. AnatomicalOrientation names where axes come from (ITK) or go to (MetaIO's manual)."""
    notes = []
    stated, to = fields.get("AnatomicalOrientation", ""), geometry.orientation
    if stated in ORIENTATIONS and stated not in (to, to.translate(str.maketrans("RLAPSI", "LRPAIS"))):
        notes.append(f"AnatomicalOrientation {stated} and TransformMatrix ({to}) differ; the matrix is used, as in ITK")
    if geometry.sheared:
        notes.append("the axes are not perpendicular (the matrix is sheared)")
    return notes


def _dtype(fields: dict[str, str]) -> tuple[np.dtype[Any], list[str]]:
    """Type of the stored numbers, with a note where their byte order isn't stated."""
    name = fields.get("ElementType", "")
    if name not in _TYPES:
        raise InputError(f"voxels of type {name!r}; needed is one of {', '.join(_TYPES)}", code="unsupported")
    if not _true(fields, "BinaryData", "True"):
        raise InputError("voxels written as text; save them as binary data", code="unsupported")
    dtype = np.dtype(_TYPES[name])
    orders = [name for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB") if name in fields]
    big = any(_true(fields, name, "") for name in orders)
    notes = [] if orders or dtype.itemsize == 1 else ["the byte order isn't stated and is taken as little endian"]
    return dtype.newbyteorder(">" if big else "<"), notes


def _scale(fields: dict[str, str]) -> tuple[float, float]:
    """Slope and intercept from stored numbers to those that are meant."""
    (slope,) = _numbers(fields, "ElementToIntensityFunctionSlope", 1, "1")
    (intercept,) = _numbers(fields, "ElementToIntensityFunctionOffset", 1, "0")
    if slope == 0 or not math.isfinite(slope * intercept):
        raise InputError(f"the MetaImage header is damaged: scaled by {slope} x + {intercept}", code="unreadable")
    return slope, intercept


def _place(path: Path, fields: dict[str, str], begin: int, needed: int) -> tuple[Path, int, Packing]:
    """File with the voxels, bytes before them, and how they are compressed."""
    name = fields["ElementDataFile"]
    if name.startswith("LIST") or "%" in name:
        raise InputError("the voxels are spread over several files; save them as one", code="unsupported")
    data, begin = (path, begin) if name.upper() == "LOCAL" else (file_beside(path, name), 0)
    size, header = archive.size_of(data), _integer(fields, "HeaderSize", "0")
    start = header if header > 0 else begin
    if not _true(fields, "CompressedData", "False"):
        return data, max(0, size - needed) if header == -1 else start, "raw"  # -1: the file ends with the voxels
    if start + _integer(fields, "CompressedDataSize", "0") > size:
        raise InputError(
            f"the file is cut short: {fields['CompressedDataSize']} compressed bytes are promised; copy it again",
            code="unreadable",
        )
    return data, start, "zlib"


METAIMAGE = Format(kind="metaimage", endings=(".mha", ".mhd"), layout=layout)
