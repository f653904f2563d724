"""A segmentation as a NIfTI file on the scan's own grid, with the scan's own sform and qform codes and units."""

from __future__ import annotations

import gzip
import io
import itertools
import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volseg.errors import ExportError
from volseg.files import write_atomically, written_atomically
from volseg.geometry import Geometry
from volseg.interop import to_nibabel
from volseg.volume import LabelVolume, Volume

if TYPE_CHECKING:
    import nibabel

#: How maps are compressed: most of them are 0 nearly everywhere, which run lengths say three times as fast.
MAP_LEVEL, MAP_STRATEGY = 6, zlib.Z_RLE
#: First bytes of a gzip file with no name and no time, and deflate's last block, which is empty.
GZIP_START, DEFLATE_END = b"\x1f\x8b\x08" + bytes(6) + b"\xff", b"\x03\x00"


def write(mask: LabelVolume, path: Path) -> tuple[str, ...]:
    """Write `mask` to `path`, compressed where that ends in ``.gz``; equal masks give equal bytes.

    Voxels are of the smallest unsigned type that holds every label. What the header says of the grid is told at
    `volseg.interop.to_nibabel`.

    Returns
    -------
    tuple of str
        Notes on what was changed or left out: none.

    Raises
    ------
    ExportError
        Code ``format``: the header's single precision can't hold the grid.
    """
    highest = max([int(mask.array.max()), *(label.value for label in mask.labels)])
    image = _image(mask.with_array(mask.array.astype(np.min_scalar_type(highest))), path)
    # NIFTI_INTENT_LABEL, code 1002: viewers show labels and no grey values.
    image.header.set_intent("label")
    _save(image, path)
    return ()


def write_scan(volume: Volume, path: Path) -> tuple[str, ...]:
    """Write a scan to `path`, compressed where that ends in ``.gz``; channels are the fourth axis.

    Raises
    ------
    ExportError
        Code ``format``: NIfTI has no such voxel type, or its header's single precision can't hold the grid.
    """
    _save(_image(volume, path), path)
    return ()


def _save(image: nibabel.Nifti1Image, path: Path) -> None:
    stream = io.BytesIO()
    if path.name.lower().endswith(".gz"):
        # No name and no time in the gzip header: they would differ from run to run.
        with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0, compresslevel=6) as compressed:
            image.to_stream(compressed)
    else:
        image.to_stream(stream)
    write_atomically(path, stream.getvalue())


def write_slabs(
    path: Path, like: LabelVolume, slabs: Iterable[npt.NDArray[np.uint8]], *, slope: float, description: str
) -> None:
    """Write a map of real numbers on the grid of `like`, compressed, a few slices at a time.

    Parameters
    ----------
    path
        File to write; equal maps give equal bytes.
    like
        Image whose grid and source the file has; its voxels don't matter.
    slabs
        (i, j, n) arrays: the stored values of the next n slices along k, to the last.
    slope
        Factor on a stored value; 255 times this is the largest value for viewers.
    description
        Text for the header, which takes 79 bytes of it.

    Raises
    ------
    ExportError
        Code ``format``: the header's single precision can't hold the grid. ``no-room``: the disk is full.
    """
    header = _image(like.with_array(np.broadcast_to(np.uint8(0), like.geometry.shape)), path).header
    header.set_data_offset(header.single_vox_offset)
    header.set_slope_inter(slope, 0)
    header["cal_max"] = 255 * slope
    header["descrip"] = description.encode()[:79].decode(errors="ignore").encode()
    start = io.BytesIO()
    header.write_to(start)
    checksum, size = 0, 0
    try:
        with written_atomically(path) as file:
            file.write(GZIP_START)
            for piece in itertools.chain([start.getbuffer()], (np.asfortranarray(slab).T.data for slab in slabs)):
                file.write(_zeros(piece.nbytes) if not np.any(piece) else _deflated(piece))
                checksum, size = zlib.crc32(piece, checksum), size + piece.nbytes
            file.write(DEFLATE_END + struct.pack("<II", checksum, size % 2**32))
    except OSError as error:
        raise ExportError(f"the file can't be written: {error.strerror}", code="no-room", path=path) from error


def _deflated(data: memoryview) -> bytes:
    """A piece of a deflate stream that refers to none before it."""
    compressor = zlib.compressobj(MAP_LEVEL, zlib.DEFLATED, -15, 9, MAP_STRATEGY)
    return compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)


@lru_cache(maxsize=4)
def _zeros(size: int) -> bytes:
    """What so many zeros become: most slices of most maps, whose compression would take longer than all else."""
    return _deflated(memoryview(bytes(size)))


def _image(volume: Volume | LabelVolume, path: Path) -> nibabel.Nifti1Image:
    """The image to write; ExportError where its header can't hold the grid."""
    image = to_nibabel(volume)
    held = Geometry(volume.geometry.shape, image.header.get_best_affine())
    difference = held.difference(volume.geometry)
    if difference is not None:
        raise ExportError(
            f"NIfTI keeps an affine in single precision, and this grid would come out with {difference}",
            code="format",
            path=path,
        )
    return image
