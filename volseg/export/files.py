"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import uuid
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` under another name in the same folder, then rename: the whole file is there, or none.

    A file that was there is replaced. The name that it has meanwhile starts with a dot and ends in ``.part``.
    """
    # Not tempfile's: its files can be read by their owner alone, and a rename would keep that.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
