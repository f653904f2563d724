"""What scanners of the vendors write that DICOM's standard elements don't say, for tests: mosaics and private elements.

Arrays are [column, row, slice]; affines are LPS, as in `tests.helpers.dicom_files`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.helpers.dicom_files import Array, image


def coded(shape: tuple[int, int, int], time: int = 0) -> Array:
    """Values that say where they are: i + 16 j + 256 k + 4096 t, each below 16, t below 8."""
    i, j, k = np.indices(shape)
    return np.asarray(i + 16 * j + 256 * k + 4096 * time, dtype=np.int16)


def private(dataset: Dataset, creator: str, values: Mapping[int, tuple[str, Any]]) -> None:
    """Put elements into a private block, by their tags with the block at 10."""
    for tag, (vr, value) in values.items():
        block = dataset.private_block(tag >> 16, creator, create=True)
        block.add_new(tag & 0xFF, vr, value)


def csa(**entries: Sequence[object]) -> bytes:
    """A CSA header of the kind that starts with SV10; values are written as text."""
    raw = b"SV10\4\3\2\1" + struct.pack("<2I", len(entries), 77)
    for name, values in entries.items():
        kind = {"AcquisitionMatrixText": b"SH", "NumberOfImagesInMosaic": b"IS"}.get(name, b"FD")
        raw += struct.pack("<64si4s3i", name.encode(), len(values), kind, 4, 6, 77)
        for place in range(6):
            text = f"{values[place]}\0".encode() if place < len(values) else b""
            raw += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return raw + b"\0" * (len(raw) % 2)


def tiled(array: Array) -> Array:
    """Slices side by side, row after row: [column, row] of the mosaic."""
    columns, rows, count = array.shape
    side = math.ceil(math.sqrt(count))
    whole = np.zeros((columns * side, rows * side, 1), array.dtype)
    for k in range(count):
        i, j = k % side * columns, k // side * rows
        whole[i : i + columns, j : j + rows, 0] = array[:, :, k]
    return whole


def siemens_mosaic(array: Array, affine: Array, *, time: int = 0, seed: str = "mosaic") -> Dataset:
    """A Siemens mosaic, its position as Siemens has it: the first tile's centre is that of the mosaic.

    The affine's third column is the way that the tiles go, along row x column or against it.
    """
    whole = tiled(array)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    centre = affine @ [(array.shape[0] - 1) / 2, (array.shape[1] - 1) / 2, 0, 1]
    place = affine.copy()
    place[:3, 3] = (centre - affine[:, 0] * (whole.shape[0] - 1) / 2 - affine[:, 1] * (whole.shape[1] - 1) / 2)[:3]
    dataset = image(whole, place, 0, seed=seed)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[seed, str(time)])
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.InstanceNumber = dataset.AcquisitionNumber = time + 1
    dataset.SpacingBetweenSlices = f"{spacing[2]:.9g}"
    dataset.Manufacturer = "SIEMENS"
    normal = [f"{value:.8f}" for value in affine[:3, 2] / spacing[2]]
    private(dataset, "SIEMENS MR HEADER", {0x0019100A: ("US", array.shape[2])})
    header = csa(
        AcquisitionMatrixText=[f"{array.shape[1]}p*{array.shape[0]}"],
        EchoLinePosition=[16],
        NumberOfImagesInMosaic=[array.shape[2]],
        SliceNormalVector=normal,
    )
    private(dataset, "SIEMENS CSA HEADER", {0x00291010: ("OB", header)})
    return dataset


def uih_mosaic(array: Array, affine: Array, *, seed: str = "vframe") -> Dataset:
    """A UIH mosaic: the position of each tile is in a private sequence."""
    dataset = image(tiled(array), affine, 0, seed=seed)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    items = []
    for k in range(array.shape[2]):
        items.append(Dataset())
        items[-1].ImagePositionPatient = [f"{value:.9g}" for value in (affine @ [0, 0, k, 1])[:3]]
    private(dataset, "Image Private Header", {0x00651050: ("DS", str(array.shape[2])), 0x00651051: ("SQ", items)})
    return dataset
