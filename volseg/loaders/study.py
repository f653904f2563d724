"""Walk a path, and say for each image in it whether it can be segmented."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from volseg.errors import InputError, UsageError
from volseg.loaders import dicom, nifti
from volseg.loaders.candidate import Candidate, Ignored, digest8, relative
from volseg.loaders.dicom_header import Header, is_dicom, read_header, tolerant
from volseg.volume import Volume

__all__ = ["Candidate", "Ignored", "Study", "find", "load"]

#: nnU-Net's names of the files of one case, one a channel: ``x_0000.nii.gz``.
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class Study:
    """What a path holds.

    Attributes
    ----------
    root
        The folder that paths are shown relative to: the path itself, or the folder of a file.
    candidates, ignored
        Images with their verdicts, and the other files; both in an order that doesn't depend on the file system's.
    """

    root: Path
    candidates: tuple[Candidate, ...]
    ignored: tuple[Ignored, ...]


def find(path: Path, *, channels: int = 1) -> Study:
    """Find the images in a file or folder, reading headers only.

    Folders are searched to any depth, linked ones too; hidden files and folders are passed over. A file that is
    damaged becomes a candidate that isn't usable; one that is no image is listed as ignored.

    Parameters
    ----------
    channels
        Of the model: with several, NIfTI files ``x_0000``, ``x_0001``, ... in one folder are one case ``x``.

    Raises
    ------
    UsageError
        The path doesn't exist.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    nifti_paths: list[Path] = []
    headers: list[Header] = []
    candidates: list[Candidate] = []
    ignored: list[Ignored] = []
    for file in sorted(_walk(path, ignored)) if path.is_dir() else [path]:
        try:
            found = _classify(file)
        except InputError as error:
            candidates.append(dicom.damaged(file, error))
            continue
        if isinstance(found, Path):
            nifti_paths.append(found)
        elif isinstance(found, Header):
            headers.append(found)
        else:
            ignored.append(found)
    candidates += _nifti_candidates(nifti_paths, channels)
    with tolerant():
        for series in dicom.group_series(headers):
            candidate, copies = dicom.describe(series)
            candidates.append(candidate)
            ignored += copies
    root = path if path.is_dir() else path.parent
    named = _different_names(candidates, root)
    return Study(
        root,
        tuple(sorted(named, key=lambda candidate: (relative(candidate.path, root), candidate.name))),
        tuple(sorted(ignored, key=lambda item: item.path)),
    )


def load(path: str | Path) -> Volume:
    """Read the one volume that a path holds.

    Parameters
    ----------
    path
        NIfTI file, or folder with one DICOM series or one NIfTI file.

    Raises
    ------
    UsageError
        The path doesn't exist, or holds several volumes; the message lists them.
    RefusalError
        It holds no image, or none that is usable; the message says why.
    """
    path = Path(path)
    study = find(path)
    usable = [candidate for candidate in study.candidates if candidate.usable]
    if len(usable) == 1:
        return usable[0].load()
    if not study.candidates:
        raise InputError(f"no image that volseg reads ({len(study.ignored)} other files)", code="no-image", path=path)
    if len(study.candidates) == 1:
        return study.candidates[0].load()
    if usable:
        names = ", ".join(candidate.name for candidate in usable)
        raise UsageError(f"{path}: holds {len(usable)} volumes ({names}); give the path of one")
    reasons = "; ".join(f"{relative(candidate.path, study.root)}: {candidate.reason}" for candidate in study.candidates)
    first = study.candidates[0]
    raise InputError(f"nothing usable: {reasons}", code=first.code or "no-image", path=path)


def _walk(root: Path, ignored: list[Ignored]) -> Iterator[Path]:
    """Regular files below `root`; each folder once, however many links lead to it."""
    seen: set[tuple[int, int]] = set()

    def refused(error: OSError) -> None:
        ignored.append(Ignored(Path(error.filename), f"can't be read: {error.strerror}"))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=refused):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(folder, name) for name in files if not name.startswith(".")]
        yield from (path for path in paths if path.is_file())


def _classify(path: Path) -> Path | Header | Ignored:
    """Tell a NIfTI file (its path), a DICOM image (its header) and anything else apart.

    Raises
    ------
    InputError
        The file claims to be DICOM and can't be read.
    """
    if nifti.is_nifti_name(path):
        return path
    try:
        claims = is_dicom(path)
    except OSError as error:
        return Ignored(path, f"can't be read: {error.strerror or error}")
    return read_header(path) if claims else Ignored(path, "neither NIfTI nor DICOM")


def _nifti_candidates(paths: Sequence[Path], channels: int) -> Iterator[Candidate]:
    cases: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    for path in paths:
        match = _CHANNEL.fullmatch(nifti.stem(path)) if channels > 1 else None
        case = cases[path.parent, match["case"]] if match else {}
        if match and int(match["channel"]) not in case:
            case[int(match["channel"])] = path
        else:
            yield nifti.describe(path)
    for (_, name), files in cases.items():
        yield nifti.describe_channels(name, files, channels)


def _different_names(candidates: Sequence[Candidate], root: Path) -> Iterator[Candidate]:
    """Candidates whose names are all different, also where a file system ignores case.

    Those of one name all get a hash of their relative path, so that a name doesn't depend on which was found first.
    """
    times = Counter(candidate.name.lower() for candidate in candidates)
    for candidate in candidates:
        if times[candidate.name.lower()] > 1:
            yield replace(candidate, name=f"{candidate.name}-{digest8([relative(candidate.path, root)])}")
        else:
            yield candidate
