"""MetaImage (``.mha``): a segmentation or a scan, compressed. Written without a library, as it is read."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.errors import ExportError
from volseg.files import write_atomically
from volseg.geometry import Geometry, ras_from_lps
from volseg.volume import LabelVolume, Volume

#: How hard to compress.
LEVEL = 4
_TYPES = {
    "u1": "MET_UCHAR",
    "i1": "MET_CHAR",
    "u2": "MET_USHORT",
    "i2": "MET_SHORT",
    "u4": "MET_UINT",
    "i4": "MET_INT",
    "u8": "MET_ULONG_LONG",
    "i8": "MET_LONG_LONG",
    "f4": "MET_FLOAT",
    "f8": "MET_DOUBLE",
}


def write(mask: LabelVolume, path: Path) -> tuple[str, ...]:
    """Write a mask to `path`; the format has no place for its labels' names, as NIfTI has none."""
    highest = max([int(mask.array.max()), *(label.value for label in mask.labels)])
    _write(path, mask.array.astype(np.min_scalar_type(highest), copy=False), mask.geometry)
    return ()


def write_scan(volume: Volume, path: Path) -> tuple[str, ...]:
    """Write a scan to `path`.

    Raises
    ------
    ExportError
        Code ``format``: MetaImage has no such voxel type.
    """
    _write(path, volume.array, volume.geometry)
    return ()


def _write(path: Path, array: npt.NDArray[Any], geometry: Geometry) -> None:
    kind = _TYPES.get(array.dtype.str[1:])
    if kind is None:
        raise ExportError(f"MetaImage has no voxels of type {array.dtype}", code="format", path=path)
    affine = ras_from_lps(geometry.affine)
    spacing, shape = [*geometry.spacing_mm], [*geometry.shape]
    # Channels are a fourth axis, as SimpleITK's JoinSeries makes them; it isn't in space.
    axes = array.ndim
    directions, offset = np.eye(axes), np.zeros(axes)
    directions[:3, :3], offset[:3] = affine[:3, :3] / np.array(spacing), affine[:3, 3]
    if axes == 4:
        spacing, shape = [*spacing, 1.0], [*shape, array.shape[0]]
    voxels = np.ascontiguousarray(array.swapaxes(-1, -3), array.dtype.newbyteorder("<"))
    data = zlib.compress(voxels.tobytes(), LEVEL)
    lines = [
        "ObjectType = Image",
        f"NDims = {axes}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(data)}",
        f"TransformMatrix = {_numbers(directions.T.ravel())}",
        f"Offset = {_numbers(offset)}",
        f"ElementSpacing = {_numbers(spacing)}",
        f"DimSize = {' '.join(str(size) for size in shape)}",
        f"ElementType = {kind}",
        "ElementDataFile = LOCAL",
    ]
    write_atomically(path, "\n".join([*lines, ""]).encode() + data)


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value)) for value in values)
