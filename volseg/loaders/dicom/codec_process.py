"""Image codecs, and a process of their own for those that damaged data can hang or crash.

CharLS never returns from some JPEG-LS images that are cut short, OpenJPH crashes on some headers, and OpenJPEG takes
gigabytes for others. In a process of its own a codec can be ended, and takes nobody with it. libjpeg-turbo and PackBits
have done nothing of that kind, and run in this process.

This file is also the program that such a process runs; it imports nothing of volseg, which would take it half a second.
"""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import sys
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
import numpy.typing as npt

#: Longest time that one image may take, in seconds: a thousand times what a slice does.
SECONDS = 60.0
#: Memory that the process may take beside what it takes at its start, in bytes; held on Linux.
MEMORY = 4 * 2**30

#: Codec, rows, columns, kind and size of the numbers, size of the frame.
_REQUEST = struct.Struct("<8sLLsBQ")
#: Whether it is there, kind and size of the numbers, size of what follows: the numbers, or what went wrong.
_REPLY = struct.Struct("<?sBQ")
_RLE_HEADER = struct.Struct("<16L")
#: Bytes that a run-length encoded segment may give beyond its pixels: encoders pad.
_SLACK = 64
#: Two bytes of it stand for 128 at most.
_MOST_PER_BYTE = 64


class CodecError(Exception):
    """A frame that can't be decoded."""


def decode(codec: str, frame: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Decode one frame, in this process.

    Parameters
    ----------
    codec
        Name of the codec: ``rle``, ``deflate``, ``jpeg8``, ``jpegls``, ``jpeg2k``, ``htj2k`` or ``jpegxl``.
    shape
        Rows and columns.
    dtype
        Type of the numbers that the codec gives; a JPEG XL image may have another.

    Returns
    -------
    NDArray
        [row, column].

    Raises
    ------
    Exception
        Whatever the codec raises, and `CodecError`.
    """
    import imagecodecs

    if codec == "rle":
        return _rle(frame, shape, dtype)
    if codec == "deflate":
        return _deflate(frame, shape, dtype)
    if codec == "jpegxl":
        return np.asarray(imagecodecs.jpegxl_decode(frame, numthreads=1))
    # With the array given, a header that claims another size is an error instead of an allocation.
    out = np.empty(shape, dtype)
    if codec == "jpeg2k":
        imagecodecs.jpeg2k_decode(frame, numthreads=1, out=out)
    else:
        {"jpeg8": imagecodecs.jpeg8_decode, "jpegls": imagecodecs.jpegls_decode, "htj2k": imagecodecs.htj2k_decode}[
            codec
        ](frame, out=out)
    return out


def _rle(frame: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """DICOM's run-length encoding: a PackBits segment for each byte of a pixel, the most significant first."""
    # Not imagecodecs' dicomrle_decode, which crashes on a damaged header.
    from imagecodecs import packbits_decode

    count, *starts = _RLE_HEADER.unpack_from(frame)
    if count != dtype.itemsize:
        raise CodecError(f"{count} segments for pixels of {dtype.itemsize} bytes")
    pixels = shape[0] * shape[1]
    if len(frame) * _MOST_PER_BYTE < pixels * count:
        raise CodecError(f"{len(frame)} bytes can't hold {shape[0]} x {shape[1]} pixels")
    cells = np.empty((pixels, count), np.uint8)
    plane = bytearray(pixels + _SLACK)
    for index, (start, end) in enumerate(zip(starts[:count], [*starts[1:count], len(frame)], strict=True)):
        held = len(packbits_decode(frame[start:end], out=plane))
        if held < pixels:
            raise CodecError(f"segment {index + 1} holds {held} of {pixels} bytes")
        cells[:, count - 1 - index] = np.frombuffer(plane, np.uint8, pixels)
    return cells.view(dtype.newbyteorder("<")).reshape(shape)


def _deflate(frame: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    wanted = shape[0] * shape[1] * dtype.itemsize
    held = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, wanted)
    if len(held) < wanted:
        raise CodecError(f"{len(held)} of {wanted} bytes")
    return np.frombuffer(held, dtype.newbyteorder("<")).reshape(shape)


class Codecs:
    """Processes that decode, started when they are needed and ended with the ``with`` block.

    Parameters
    ----------
    count
        Most processes at once; further calls wait for one.
    """

    def __init__(self, count: int) -> None:
        self._idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        self._count = count
        for _ in range(count):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(self._count):
            process = self._idle.get()
            if process is not None:
                _end(process)

    def decode(self, codec: str, frame: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """`decode`, in another process; any thread may call it.

        Raises
        ------
        CodecError
            The codec refused the frame, crashed, or took longer than `SECONDS`.
        """
        process = self._idle.get()
        try:
            process = process or _start()
            return _ask(process, codec, frame, shape, dtype)
        except (EOFError, OSError) as error:
            if process is not None:
                _end(process)
                process = None
            raise CodecError(f"the codec crashed, or took longer than {SECONDS:g} s") from error
        finally:
            self._idle.put(process)


def _start() -> subprocess.Popen[bytes]:
    # The same modules as here, wherever the program that called us has its own from.
    program = f"import sys; sys.path[:] = {sys.path!r}; import runpy; runpy.run_path({__file__!r}, run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with suppress(OSError):  # what couldn't be sent any more
        process.communicate()


def _ask(
    process: subprocess.Popen[bytes], codec: str, frame: bytes, shape: tuple[int, int], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    to_it, from_it = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        to_it.write(_REQUEST.pack(codec.encode(), *shape, dtype.kind.encode(), dtype.itemsize, len(frame)))
        to_it.write(frame)
        to_it.flush()
        there, kind, itemsize, length = _REPLY.unpack(_exactly(from_it, _REPLY.size))
        if not there:
            raise CodecError(_exactly(from_it, length).decode("utf-8", "replace"))
        numbers = np.empty(shape, np.dtype(f"{kind.decode()}{itemsize}"))
        if length != numbers.nbytes:
            raise EOFError
        _fill(from_it, numbers.data.cast("B"))
    finally:
        timer.cancel()
    return numbers


def _exactly(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return content


def _fill(file: BinaryIO, buffer: memoryview) -> None:
    while buffer:
        held = cast(int, file.readinto(buffer))  # type: ignore[attr-defined]
        if not held:
            raise EOFError
        buffer = buffer[held:]


def _serve() -> None:
    """Answer requests until there are no more."""
    _limit_memory()
    requests = open(0, "rb", closefd=False)  # noqa: SIM115
    replies = os.fdopen(os.dup(1), "wb")
    # What a codec writes of its own accord isn't an answer.
    os.dup2(2, 1)
    while len(head := requests.read(_REQUEST.size)) == _REQUEST.size:
        codec, rows, columns, kind, itemsize, length = _REQUEST.unpack(head)
        frame = requests.read(length)
        try:
            dtype = np.dtype(f"{kind.decode()}{itemsize}")
            numbers = decode(codec.rstrip(b"\0").decode(), frame, (rows, columns), dtype)
            if numbers.shape != (rows, columns):
                raise CodecError(f"an image of {numbers.shape} instead of {rows} x {columns}")
            content = np.ascontiguousarray(numbers).tobytes()
            replies.write(_REPLY.pack(True, numbers.dtype.kind.encode(), numbers.itemsize, len(content)))
        except Exception as error:
            content = (str(error) or type(error).__name__).encode()
            replies.write(_REPLY.pack(False, b"u", 1, len(content)))
        replies.write(content)
        replies.flush()


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        # Libraries reserve room for each core of the machine.
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


if __name__ == "__main__":
    _serve()
