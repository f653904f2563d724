"""Reading a file once: its bytes are hashed as they come, and unpacked where they are compressed.

A file may be a member of a ZIP archive (`archive`). Nothing here makes room for more than a file can hold, whatever its
header promises.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt

from volseg.errors import InputError
from volseg.loaders import archive

Packing = Literal["raw", "gzip", "zlib"]

#: The most bytes that one byte of gzip or zlib can stand for: deflate's 258 bytes in two bits.
DEFLATE_RATIO = 1032
#: The longest text header that is read. Those of segmentations and diffusion scans have some 100 KiB.
HEADER_BYTES = 1 << 20

_CHUNK = 1 << 20
_PACKED_CHUNK = 1 << 18


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Hashing:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        data = self._file.read(size)
        self.sha256.update(data)
        return data


class _Inflated:
    """Content of a zlib stream, or of all members of a gzip, to the end and its checksum.

    The standard library's GzipFile does the same, and is slower: it reads 8 KiB at a time.
    """

    def __init__(self, file: Readable, packing: Packing) -> None:
        self._file = file
        self._members = packing == "gzip"
        self._wbits = 31 if self._members else 47  # 47: MetaImage takes zlib and gzip alike
        self._inflate = zlib.decompressobj(self._wbits)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while True:
            data = self._rest or self._file.read(_PACKED_CHUNK)
            if self._inflate.eof:
                if not data or not self._members:
                    return b""
                self._rest = data.lstrip(b"\0")  # zeros may fill up a tape's block; all else is another member
                if self._rest:
                    self._inflate = zlib.decompressobj(self._wbits)
                continue
            content = self._inflate.decompress(data, size)
            self._rest = self._inflate.unused_data or self._inflate.unconsumed_tail
            if content:
                return content
            if not data and not self._inflate.eof:
                raise EOFError


@contextmanager
def read_errors() -> Iterator[None]:
    """Turn what reading a file may raise into ``unreadable``."""
    try:
        yield
    except EOFError as error:
        raise InputError("the file is cut short; copy it again", code="unreadable") from error
    except (zlib.error, zipfile.BadZipFile) as error:
        raise InputError(
            f"the compressed data are damaged ({error}); copy the file again", code="unreadable"
        ) from error
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", code="unreadable") from error


def packing_of(path: Path) -> Packing:
    """Whether the first bytes are gzip's: a name may be wrong."""
    with archive.open_binary(path) as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else "raw"


def unpacked(file: Readable, packing: Packing) -> Readable:
    """Content of `file` from where it stands."""
    return file if packing == "raw" else _Inflated(file, packing)


def check_length(path: Path, start: int, packing: Packing, needed: int) -> None:
    """Check that `needed` bytes of content can be in `path` behind its first `start` bytes.

    A gzip's last four bytes say how long its content is, to be believed where they say what is needed; a zlib stream
    doesn't say it, and is found to be cut short when it is read.

    Raises
    ------
    InputError
        Code ``unreadable``.
    """
    stored = max(0, archive.size_of(path) - start)
    if packing != "raw" and needed > DEFLATE_RATIO * stored:
        raise InputError(
            f"the header promises {needed} bytes, and {stored} compressed bytes can't hold as many: the file is cut"
            " short or its header damaged; copy it again",
            code="unreadable",
        )
    held = stored if packing == "raw" else _unzipped_length(path, start, needed) if packing == "gzip" else needed
    if held < needed:
        raise InputError(f"the file is cut short: {held} of {needed} bytes are there; copy it again", code="unreadable")


def _unzipped_length(path: Path, start: int, needed: int) -> int:
    """Bytes in a gzip, counted up to the chunk in which there are `needed`."""
    with archive.open_binary(path) as file:
        file.seek(-min(4, archive.size_of(path)), 2)
        if int.from_bytes(file.read(4), "little") == needed % 2**32:
            return needed
        file.seek(start)
        content, held = unpacked(file, "gzip"), 0
        while held < needed and (chunk := content.read(_CHUNK)):
            held += len(chunk)
        content.read(1)  # raises EOFError where only the checksum is cut off
        return held


def fill(content: Readable, buffer: npt.NDArray[np.uint8]) -> None:
    """Fill `buffer` (bytes) from `content`, or raise EOFError."""
    filled = 0
    while filled < buffer.size:
        chunk = content.read(min(_CHUNK, buffer.size - filled))
        if not chunk:
            raise EOFError
        buffer[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)


def skip(content: Readable, count: int) -> None:
    """Read `count` bytes and drop them, or raise EOFError."""
    while count:
        chunk = content.read(min(_CHUNK, count))
        if not chunk:
            raise EOFError
        count -= len(chunk)


def drain(content: Readable) -> None:
    """Read to the end: that is where a gzip keeps its checksum, and a hash is of the whole file."""
    while content.read(_CHUNK):
        pass


def text_lines(file: BinaryIO) -> Iterator[str]:
    """Lines of a text header, without their ends; the file stands behind the line that was given last.

    Bytes that aren't UTF-8 are kept as the file system keeps them in names, so that a header can name any file.

    Raises
    ------
    InputError
        Code ``unreadable``: no end within `HEADER_BYTES`.
    """
    length = 0
    while line := file.readline(HEADER_BYTES):
        length += len(line)
        if length > HEADER_BYTES:
            raise InputError(f"the header has no end within {HEADER_BYTES} bytes", code="unreadable")
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def file_beside(header: Path, name: str) -> Path:
    """Path of the data file that a header names; only one in the header's own folder or below it.

    The rule is on the name alone: a link that lies there is followed, as everywhere else.

    Raises
    ------
    InputError
        Codes ``unsupported`` (it lies elsewhere) and ``unreadable`` (it isn't there).
    """
    parts = PureWindowsPath(name)  # knows both kinds of slashes
    if parts.anchor or ".." in parts.parts:
        raise InputError(
            f"the voxels are in {name!r}, outside the header's folder, and aren't read from there; move that file"
            " beside the header and name it so",
            code="unsupported",
        )
    path = header.parent.joinpath(*parts.parts)
    if "\0" in name or not archive.exists(path) or path.is_dir():
        raise InputError(f"the voxels' file {name!r} isn't there; copy it beside the header", code="unreadable")
    return path
