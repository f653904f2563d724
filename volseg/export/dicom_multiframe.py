"""A multi-frame DICOM object, written piece by piece: neither its pixels nor its frames' headers are ever a data set.

pydicom writes the header of a frame in a millisecond, and a segmentation has thousands. Here a frame's header is put
together from parts that are encoded once a slice, and pixels go to the file as they are made.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from volseg.errors import ExportError
from volseg.files import written_atomically

#: Largest length of an element in DICOM: the number after it says that the length isn't known.
MOST_BYTES = 2**32 - 2
#: Longest run of one value in DICOM's run-length encoding.
LONGEST_RUN = 128

_PER_FRAME, _PIXEL_DATA = (0x5200, 0x9230), (0x7FE0, 0x0010)
_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNKNOWN = 0xFFFFFFFF
#: Header of an RLE frame: number of segments, and where each begins (PS3.5 annex G).
_RLE_HEADER = 64

Bytes = npt.NDArray[np.uint8]


def write_native(path: Path, header: Dataset, frames: Sequence[bytes], pixels: Iterable[bytes]) -> None:
    """Write an object whose pixels aren't compressed.

    Parameters
    ----------
    path
        File to write; its folder exists.
    header
        All that comes before the frames, with its file meta information; explicit little endian.
    frames
        Header of each frame, from `item`.
    pixels
        The bytes of all frames, in pieces; as many as the header says.

    Raises
    ------
    ExportError
        Code ``format``: more pixels than an object holds. ``no-room``: the disk is full.
    """
    bits = int(header.NumberOfFrames) * header.Rows * header.Columns * header.BitsAllocated
    size = -(-bits // 16) * 2
    if size > MOST_BYTES:
        raise ExportError(
            f"{header.NumberOfFrames} frames of {header.Columns} x {header.Rows} pixels are {size / 1e9:.1f} GB, and a"
            " DICOM object holds 4.3 GB; a label map (--format labelmap) has one frame a slice",
            code="format",
            path=path,
        )
    padding = b"\0" * (-(-bits // 8) % 2)
    _write(path, header, frames, itertools.chain([_long(_PIXEL_DATA, b"OB", size)], pixels, [padding]))


def write_compressed(path: Path, header: Dataset, frames: Sequence[bytes], pixels: Sequence[bytes]) -> None:
    """Write an object whose frames are each a fragment, of even length; arguments as those of `write_native`."""
    starts = np.cumsum([0, *(len(frame) + 8 for frame in pixels[:-1])])
    # Where each frame starts is left out where 32 bits can't say it.
    table = b"" if starts[-1] > MOST_BYTES else starts.astype("<u4").tobytes()
    fragments = (piece for frame in pixels for piece in (_short(_ITEM, len(frame)), frame))
    begin = [_long(_PIXEL_DATA, b"OB", _UNKNOWN), _short(_ITEM, len(table)), table]
    _write(path, header, frames, itertools.chain(begin, fragments, [_short(_END_OF_SEQUENCE, 0)]))


def _write(path: Path, header: Dataset, frames: Sequence[bytes], pixel_element: Iterable[bytes]) -> None:
    head = io.BytesIO()
    header.save_as(head, enforce_file_format=True)
    try:
        with written_atomically(path) as file:
            file.write(head.getvalue())
            file.write(_long(_PER_FRAME, b"SQ", sum(map(len, frames))))
            file.writelines(frames)
            file.writelines(pixel_element)
    except OSError as error:
        raise ExportError(f"the file can't be written: {error.strerror}", code="no-room", path=path) from error


def item(parts: Iterable[bytes]) -> bytes:
    """An item of a sequence, of encoded elements in the order of their tags."""
    content = b"".join(parts)
    return _short(_ITEM, len(content)) + content


def sequence(tag: tuple[int, int], content: bytes) -> bytes:
    """A sequence of one item, of encoded elements."""
    return _long(tag, b"SQ", len(content) + 8) + _short(_ITEM, len(content)) + content


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """An element of a value representation with a short length, such as US and UL."""
    return struct.pack("<HH2sH", *tag, vr, len(value)) + value


def encoded(dataset: Dataset) -> bytes:
    """The elements of a data set in explicit little endian."""
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, dataset)
    return stream.getvalue()


def packed(frames: Iterable[npt.NDArray[np.bool_]], pixels: int) -> Iterator[bytes]:
    """Frames of one bit a pixel; where `pixels` of a frame don't fill bytes, the next one follows its last bit."""
    frames = iter(frames)
    # Eight frames always fill bytes.
    together = 8 if pixels % 8 else 1
    while group := list(itertools.islice(frames, together)):
        yield np.packbits(np.concatenate([frame.ravel() for frame in group]), bitorder="little").tobytes()


def run_lengths(frame: npt.NDArray[np.unsignedinteger]) -> bytes:
    """A frame [row, column] in DICOM's run-length encoding (PS3.5 annex G): its higher bytes first, each by rows.

    Every run is told by its length and its value, a single pixel as a run that isn't repeated: masks have few of them.
    """
    planes = np.ascontiguousarray(frame, frame.dtype.newbyteorder(">")).view(np.uint8).reshape(*frame.shape, -1)
    segments = [_runs(planes[..., n]) for n in range(planes.shape[-1])]
    starts = _RLE_HEADER + np.cumsum([0, *map(len, segments[:-1])])
    head = struct.pack("<I", len(segments)) + starts.astype("<u4").tobytes()
    return b"".join([head.ljust(_RLE_HEADER, b"\0"), *segments])


def _runs(plane: Bytes) -> bytes:
    rows, columns = plane.shape
    # No run goes from a row to the next.
    begins = np.ones((rows, columns), np.bool_)
    np.not_equal(plane[:, 1:], plane[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=rows * columns)
    pieces = -(-lengths // LONGEST_RUN)
    rest = lengths - (pieces - 1) * LONGEST_RUN
    sizes = np.full(pieces.sum(), LONGEST_RUN)
    sizes[np.cumsum(pieces) - 1] = rest
    pairs = np.empty((len(sizes), 2), np.uint8)
    # 257 - n repeats the next byte n times; 0, which that is for 1, copies one byte.
    pairs[:, 0] = (257 - sizes) % 256
    pairs[:, 1] = plane.ravel()[starts].repeat(pieces)
    return pairs.tobytes()


def _long(tag: tuple[int, int], vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHI", *tag, vr, 0, length)


def _short(tag: tuple[int, int], length: int) -> bytes:
    return struct.pack("<HHI", *tag, length)
