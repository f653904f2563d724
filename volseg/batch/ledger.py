"""What a case's folder holds of an earlier run: whether that still holds, and its removal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from volseg.export.outputs import OUTPUTS
from volseg.results import RESULT
from volseg.results.case import CaseResult, known


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """sha256 of each file, by its name relative to `folder`."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}


def reusable(folder: Path, wanted: CaseResult) -> CaseResult | None:
    """The finished result of a case, if what it was made from is what is wanted, and every file is still what it was.

    Parameters
    ----------
    folder
        The case's folder.
    wanted
        A result by the same version, of the same input, model and options as one that would be made now.
    """
    result = known(folder)
    if result is None or result.status not in ("done", "empty") or result.key() != wanted.key():
        return None
    try:
        unchanged = file_hashes(folder, result.files) == result.files
    except OSError:
        unchanged = False
    return result if unchanged else None


def discard(folder: Path) -> None:
    """Remove what an earlier run left of a case: its ``result.json`` first, then the files that it names.

    Every output's own files go also where a run that was interrupted left them without a ``result.json``.
    """
    result = known(folder)
    (folder / RESULT).unlink(missing_ok=True)
    own = [name for output in OUTPUTS for name in output.own(folder)]
    for name in [*(() if result is None else result.files), *own]:
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()
    if folder.is_dir():
        for emptied in (path for path in folder.iterdir() if path.is_dir() and not any(path.iterdir())):
            emptied.rmdir()
