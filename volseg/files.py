"""Reading text that people hand in, and writing files so that a reader never meets half of one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def read_text(path: Path) -> str:
    """Content of a file in UTF-8; the byte order mark that Windows puts before it is none of it.

    Raises
    ------
    OSError, UnicodeDecodeError
        It can't be read, or is in another encoding.
    """
    return path.read_text(encoding="utf-8-sig")


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write that bears another name in the same folder until all is written: it is there whole, or not.

    A file that was there is replaced. The name that it has meanwhile starts with a dot and ends in ``.part``.
    """
    # Not tempfile's: its files can be read by their owner alone, and a rename would keep that.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `written_atomically` does."""
    with written_atomically(path) as file:
        file.write(data)
