"""Names and numbers as text: what may be a file's name, and how things are counted."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

#: Longest part of a case name that comes from a description or a file name.
NAME_LENGTH = 80


def relative(path: Path, root: Path) -> str:
    """`path` as seen from `root`, with slashes; ``.`` where they are the same."""
    return Path(os.path.relpath(path, root)).as_posix()


def safe_name(text: str, length: int = NAME_LENGTH) -> str:
    """`text` cut down to what every file system takes: ASCII letters and digits, dot, underscore and hyphen."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain)[:length].strip("._-") or "x"


def digest8(parts: Iterable[str]) -> str:
    """First 8 hex digits of the SHA-256 of `parts`, a line each."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
