"""``result.json``: what was done with a case, and whether that still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from volseg.export import FORMATS
from volseg.export.maps import FOLDER as MAPS
from volseg.files import write_atomically

RESULT, PREVIEW = "result.json", "preview.png"

Status = Literal["done", "empty", "skipped", "refused", "failed"]
#: What makes two runs of a case the same, beside the input's hash.
_SAME = ("volseg", "model", "options")
#: Options that the result doesn't depend on.
_FREE = ("memory",)


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """sha256 of each file, by its name relative to `folder`."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}


def read_result(folder: Path) -> dict[str, Any] | None:
    """The case's ``result.json``, or None where there is none that can be read."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(result, dict) and all(isinstance(result.get(key), dict) for key in ("source", "files"))
    return result if whole else None


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RESULT, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def reusable(folder: Path, wanted: dict[str, Any], sha256: str) -> dict[str, Any] | None:
    """The finished result of the same input, model and options, if every file it names is still what it was."""
    result = read_result(folder)
    if result is None or result.get("status") not in ("done", "empty"):
        return None
    if any(_fixed(result.get(key)) != _fixed(wanted[key]) for key in _SAME):
        return None
    if result["source"].get("sha256") != sha256:
        return None
    try:
        unchanged = file_hashes(folder, result["files"]) == result["files"]
    except OSError:
        unchanged = False
    return result if unchanged else None


def _fixed(value: Any) -> Any:
    """A part of a result without what it doesn't depend on."""
    return {key: item for key, item in value.items() if key not in _FREE} if isinstance(value, dict) else value


def discard(folder: Path) -> None:
    """Remove what an earlier run left of a case: its ``result.json`` first, then the files that it names.

    Masks, maps and the picture go also where a run that was interrupted left them without a ``result.json``.
    """
    result = read_result(folder)
    (folder / RESULT).unlink(missing_ok=True)
    masks = [file for file, _ in FORMATS.values()]
    maps = [f"{MAPS}/{path.name}" for path in (folder / MAPS).glob("*.nii.gz")]
    for name in [*(result or {}).get("files", {}), *masks, *maps, PREVIEW]:
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()
    if folder.is_dir():
        for emptied in (path for path in folder.iterdir() if path.is_dir() and not any(path.iterdir())):
            emptied.rmdir()
