"""Files, and the members of archives, by one kind of path: ``study.zip/inside/IM1`` is a member of ``study.zip``.

ZIP archives are read here, tar archives and gzipped files in `tape`. Nothing is unpacked to files with names, so that
no name can lead out of an archive, and a member is never read beyond the size that the archive states, which is
bounded.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from volseg.errors import InputError
from volseg.loaders import tape
from volseg.loaders.candidate import Ignored

#: Largest member that is read, in bytes.
MEMBER_BYTES = 4 * 2**30
#: A member that grows more than this is no scan: deflate's own limit is 1032.
LARGEST_RATIO = 1100
#: Most members of one archive.
MEMBERS = 500_000

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1


def is_archive(path: Path) -> bool:
    """Whether the file is a ZIP or tar archive, or gzipped and no image's, by its name and its first bytes."""
    return _is_zip(path) or tape.is_tape(path)


def _is_zip(path: Path) -> bool:
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def members(path: Path) -> Iterator[Path | Ignored]:
    """Paths of the files in an archive, and for each that isn't read the reason why not."""
    if not _is_zip(path):
        yield from _tape_members(path)
        return
    try:
        infos = _archive(path).infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        yield Ignored(path, f"a damaged ZIP archive ({error})")
        return
    if len(infos) > MEMBERS:
        yield Ignored(path, f"an archive with {len(infos)} files; unpack it")
        return
    for info in infos:
        if not info.filename:
            yield Ignored(path, "a member of the archive has no name")
            continue
        name = _name(info)
        if info.is_dir() or name.endswith("/") or _hidden(name):
            continue
        refused = _refused(info)
        yield path / name if refused is None else Ignored(_shown(path, name), refused)


def _tape_members(path: Path) -> Iterator[Path | Ignored]:
    try:
        found = tape.read_tape(path, MEMBERS)
    except tape.ERRORS as error:
        yield Ignored(path, f"a damaged archive, or one that isn't read ({' '.join(str(error).split())})")
        return
    for name, member in found.items():
        if _hidden(name):
            continue
        refused = _refused_member(member)
        yield path / name if refused is None else Ignored(_shown(path, name), refused)


def _refused_member(member: tape.Member) -> str | None:
    return member.refused or _refused_name(member.name) or _refused_size(member.size)


def _name(info: zipfile.ZipInfo) -> str:
    """Name of a member; programs on Windows part folders by backslashes."""
    return info.filename.replace("\\", "/")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts if part != "..")


def _shown(path: Path, name: str) -> Path:
    """Where to say that a refused member lies: below the archive, whatever its name says."""
    return path.joinpath(*(part for part in re.split(r"[\\/:]+", name) if part not in ("", ".", "..")))


def _refused_name(name: str) -> str | None:
    if not _stays_inside(name):
        return "a name that leads out of the archive"
    if name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz")):
        return "an archive inside an archive; unpack it"
    return None


def _refused_size(size: int) -> str | None:
    return f"{size} bytes: too large to be read inside an archive; unpack it" if size > MEMBER_BYTES else None


def _refused(info: zipfile.ZipInfo) -> str | None:
    if not _stays_inside(_name(info)):
        return "a name that leads out of the archive"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link inside an archive"
    if info.flag_bits & _ENCRYPTED:
        return "encrypted; unpack the archive"
    if info.compress_type not in _METHODS:
        return f"compressed by a method that isn't read (number {info.compress_type}); unpack the archive"
    if refused := _refused_name(_name(info)) or _refused_size(info.file_size):
        return refused
    if info.file_size > 2**20 and info.file_size > LARGEST_RATIO * info.compress_size:
        return f"grows from {info.compress_size} to {info.file_size} bytes: no scan does"
    return None


def _stays_inside(name: str) -> bool:
    # A colon is a drive elsewhere.
    return not (name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts)


def open_binary(path: Path) -> BinaryIO:
    """Open a file, or a member of an archive, for reading.

    Raises
    ------
    OSError
        There is no such file or member, or it can't be opened.
    """
    try:
        return path.open("rb")
    except (NotADirectoryError, FileNotFoundError):
        member = _member(path)
        if isinstance(member, tape.Member):
            return member.open()
        archive, info = member
        try:
            return cast(BinaryIO, archive.open(info))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
            raise OSError(f"damaged in its archive ({error})") from error


def size_of(path: Path) -> int:
    """Size of a file, or of a member of an archive as the archive states it, in bytes.

    Raises
    ------
    OSError
        There is no such file or member.
    """
    try:
        return path.stat().st_size
    except (NotADirectoryError, FileNotFoundError):
        member = _member(path)
        return member.size if isinstance(member, tape.Member) else member[1].file_size


def read_bytes(path: Path) -> bytes:
    """Content of a file, or of a member of an archive.

    Raises
    ------
    InputError
        Code ``unreadable``.
    """
    with read_errors(path), open_binary(path) as file:
        # Told how much, zipfile unpacks no more than that, whatever the member's data would become.
        return file.read(size_of(path))


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what opening and reading may raise into ``unreadable``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", code="unreadable", path=path) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"damaged in its archive ({error})", code="unreadable", path=path) from error


def exists(path: Path) -> bool:
    """Whether there is such a file, folder, or member of an archive."""
    try:
        return path.exists() or size_of(path) >= 0
    except OSError:
        return False


def _member(path: Path) -> tuple[zipfile.ZipFile, zipfile.ZipInfo] | tape.Member:
    for parent in path.parents:
        if parent.is_file():
            if not is_archive(parent):
                break
            if not _is_zip(parent):
                if member := _on_tape(parent, path.relative_to(parent).as_posix()):
                    return member
                break
            archive = _archive(parent)
            info = _by_name(parent).get(PurePosixPath(path.relative_to(parent).as_posix()))
            if info is not None and _refused(info) is None:
                return archive, info
            break
    raise FileNotFoundError(2, os.strerror(2), str(path))


def _on_tape(path: Path, name: str) -> tape.Member | None:
    try:
        member = tape.read_tape(path, MEMBERS).get(name)
    except tape.ERRORS as error:
        raise OSError(f"damaged in its archive ({error})") from error
    return member if member is not None and _refused_member(member) is None else None


def _archive(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    return _opened(path, status.st_mtime_ns, status.st_size)


def _by_name(path: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    status = path.stat()
    return _names(path, status.st_mtime_ns, status.st_size)


# An archive's directory is read once and not for each of its thousands of members. The time and size tell a changed
# file from the one that was read. Members are read through a lock of ZipFile's own.
@lru_cache(maxsize=8)
def _opened(path: Path, _mtime_ns: int, _size: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@lru_cache(maxsize=8)
def _names(path: Path, _mtime_ns: int, _size: int) -> dict[PurePosixPath, zipfile.ZipInfo]:
    return {PurePosixPath(_name(info)): info for info in _opened(path, _mtime_ns, _size).infolist()}
