"""Tar archives, plain or gzipped, and single gzipped files: their content by name, without unpacking it to named files.

A gzipped archive is unzipped once, to a file without a name that is gone with the process; a single file in memory.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

#: Largest content of a gzipped archive, and of a single gzipped file, in bytes.
TAPE_BYTES, FILE_BYTES = 16 * 2**30, 4 * 2**30
#: What opening or reading a damaged one may raise.
ERRORS = (OSError, tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError)

_TARS, _GZIPPED = (".tar",), (".tar.gz", ".tgz")
#: Files of image formats that are gzipped themselves, which their readers unzip.
_FORMATS = (".nii.gz", ".hdr.gz", ".img.gz")
_GZIP = b"\x1f\x8b"


class _Tape:
    """An open file that is closed when nobody can read it any more."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        weakref.finalize(self, file.close)


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes
    ----------
    name
        Name in the archive, with slashes.
    size
        Size of its content, in bytes.
    refused
        Reason why it isn't read; None: it is.
    content
        The bytes, or the tape that has them from `start` on.
    """

    name: str
    size: int
    refused: str | None
    content: bytes | _Tape
    start: int = 0

    def open(self) -> BinaryIO:
        """The content; each reader has a place of its own, so that threads don't disturb each other."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return cast(BinaryIO, io.BufferedReader(_Part(self.content, self.start, self.size)))


class _Part(io.RawIOBase):
    """`size` bytes of a tape from `start` on."""

    def __init__(self, tape: _Tape, start: int, size: int) -> None:
        self._tape, self._start, self._size, self._at = tape, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        wanted = max(0, min(len(view), self._size - self._at))
        data = os.pread(self._tape.file.fileno(), wanted, self._start + self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def is_tape(path: Path) -> bool:
    """Whether the file is a tar archive, or a DICOM file that is gzipped, by its name and its first bytes."""
    name = path.name.lower()
    if not name.endswith((*_TARS, *_GZIPPED, ".gz")) or name.endswith(_FORMATS) or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(262)
    if name.endswith(_TARS):
        return start[257:262] == b"ustar"
    if start[:2] != _GZIP or name.endswith(_GZIPPED):
        return start[:2] == _GZIP
    try:
        # Logs and tables are gzipped too, and may be huge.
        with gzip.open(path) as file:
            return file.read(132)[128:] == b"DICM"
    except ERRORS:
        return False


def read_tape(path: Path, most: int) -> dict[str, Member]:
    """Members by name, those that aren't read included; folders are none.

    Parameters
    ----------
    most
        Number of members beyond which nothing is read.

    Raises
    ------
    ERRORS
        It is damaged, or holds more than is read.
    """
    status = path.stat()
    return _read(path, most, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=8)
def _read(path: Path, most: int, _version: tuple[int, int]) -> dict[str, Member]:
    name = path.name.lower()
    if not name.endswith((*_TARS, *_GZIPPED)):
        with gzip.open(path) as file:
            content = _AtMost(cast(BinaryIO, file), FILE_BYTES).read(FILE_BYTES + 1)
        return {path.name[:-3]: Member(path.name[:-3], len(content), None, content)}
    tape = _Tape(path.open("rb")) if name.endswith(_TARS) else _unzipped(path)
    return {member.name: member for member in _members(tape, most)}


def _unzipped(path: Path) -> _Tape:
    tape = _Tape(cast(BinaryIO, tempfile.TemporaryFile()))  # noqa: SIM115
    with gzip.open(path) as file:
        shutil.copyfileobj(cast(BinaryIO, _AtMost(cast(BinaryIO, file), TAPE_BYTES)), tape.file, 1 << 20)
    return tape


class _AtMost:
    """A file that is read up to a number of bytes, and refused beyond."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._left = file, most

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("too large to be read packed; unpack it")
        return data


def _members(tape: _Tape, most: int) -> Iterator[Member]:
    end = tape.file.seek(0, os.SEEK_END)
    tape.file.seek(0)
    with tarfile.open(fileobj=tape.file, mode="r:") as archive:
        for number, info in enumerate(archive):
            if number >= most:
                raise ValueError(f"more than {most} files; unpack it")
            if not info.isdir():
                # Names may start with "./".
                name = PurePosixPath(info.name).as_posix()
                yield Member(name, info.size, _refused(info, end), tape, info.offset_data)


def _refused(info: tarfile.TarInfo, end: int) -> str | None:
    if info.issym() or info.islnk():
        return "a link inside an archive"
    if not info.isreg() or info.issparse():
        return "no regular file inside an archive"
    return "cut short in its archive; copy it again" if info.offset_data + info.size > end else None
