"""Walk a path, and say for each image in it whether it can be segmented."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from volseg.config import ChannelConfig
from volseg.errors import InputError, UsageError
from volseg.loaders import archive, dicom, metaimage, nifti, nrrd
from volseg.loaders.candidate import Candidate, Ignored, digest8, relative
from volseg.loaders.channels import from_files, from_study
from volseg.loaders.dicom_header import Header, read_header, tolerant
from volseg.volume import Volume

__all__ = ["Candidate", "Ignored", "Study", "find", "load"]

#: Files that are looked at, at the same time: a network drive answers slowly, and several questions at once.
THREADS = 8
#: Files that a thread takes at once.
CHUNK = 16
#: Called with the number of files that were looked at, and with how many there are.
Progress = Callable[[int, int], None]


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


def find(path: Path, *, channels: Sequence[ChannelConfig] = (), progress: Progress | None = None) -> Study:
    """Find the images in a file or folder, reading headers only.

    Folders are searched to any depth, linked ones too, and so are ZIP archives; hidden files and folders are passed
    over. A file that is damaged becomes a candidate that isn't usable; one that is no image is listed as ignored.

    Parameters
    ----------
    channels
        Of the model: with several, files ``x_0000``, ``x_0001``, ... in one folder are one case ``x``, and the series
        of a study that their rules name are one case.
    progress
        Called with the number of files that were looked at, and with how many there are.

    Raises
    ------
    UsageError
        The path doesn't exist.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    root = path if path.is_dir() else path.parent
    ignored: list[Ignored] = []
    with tolerant():
        found = _candidates(sorted(_files(path, ignored)), ignored, progress)
    named = _different_names(from_study(from_files(found, channels), channels), root)
    ordered = sorted(named, key=lambda candidate: (relative(candidate.path, root), candidate.name))
    # The voxels of a header in another file are no file of their own.
    voxels = {file for candidate in ordered for file in candidate.files}
    linked = (_linked(item, ordered) for item in ignored if item.path not in voxels)
    return Study(root, tuple(ordered), tuple(sorted(linked, key=lambda item: item.path)))


def load(path: str | Path, *, resample_tilt: bool = False) -> Volume:
    """Read the one volume that a path holds.

    Parameters
    ----------
    path
        File of an image, or folder with one DICOM series or one such file.
    resample_tilt
        Take a series with a tilt as well, on straight slices; see `Candidate.load`.

    Raises
    ------
    UsageError
        The path doesn't exist, or holds several volumes; the message lists them.
    RefusalError
        It holds no image, or none that is usable; the message says why.
    """
    path = Path(path)
    study = find(path)
    usable = [c for c in study.candidates if c.usable or (c.code == "tilted" and resample_tilt)]
    if len(usable) == 1:
        return usable[0].load(resample_tilt=resample_tilt)
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


def _files(path: Path, ignored: list[Ignored]) -> Iterator[Path]:
    """Files in a folder and in its archives; or the one file, or what is in it where it is an archive."""
    for file in _walk(path, ignored) if path.is_dir() else [path]:
        if not archive.is_archive(file):
            yield file
            continue
        for member in archive.members(file):
            if isinstance(member, Path):
                yield member
            else:
                ignored.append(member)


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
        ignored += [Ignored(path, "a link that leads nowhere") for path in paths if not path.exists()]
        yield from (path for path in paths if path.is_file())


def _candidates(paths: Sequence[Path], ignored: list[Ignored], progress: Progress | None) -> list[Candidate]:
    headers: list[Header] = []
    candidates: list[Candidate] = []
    for found in _looked_at(paths, progress):
        if isinstance(found, Header):
            headers.append(found)
        elif isinstance(found, Candidate):
            candidates.append(found)
        else:
            ignored.append(found)
    for series in dicom.group_series(headers):
        volumes, copies = dicom.describe(series)
        candidates += volumes
        ignored += copies
    return candidates


def _looked_at(paths: Sequence[Path], progress: Progress | None) -> Iterator[Header | Ignored | Candidate]:
    """What each file is, in the order of the paths."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    done = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(lambda chunk: [_classify(path) for path in chunk], chunks):
            yield from found
            done += len(found)
            if progress is not None:
                progress(done, len(paths))


def _classify(path: Path) -> Header | Ignored | Candidate:
    """Tell the file of an image, the header of a DICOM file and anything else apart."""
    if nifti.is_nifti_name(path):
        return nifti.describe(path)
    if nrrd.is_nrrd_name(path):
        return nrrd.describe(path)
    if metaimage.is_metaimage_name(path):
        return metaimage.describe(path)
    if (header := nifti.pair_header(path)) is not None and nifti.is_pair(path):
        # A pair is one image, and its header stands for it.
        return nifti.describe(path) if path == header else Ignored(path, f"the voxels of {header.name}")
    try:
        return read_header(path) or Ignored(path, "no image that volseg reads")
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            return Ignored(path, error.reason)
        return dicom.damaged(path, error)


def _linked(item: Ignored, candidates: Sequence[Candidate]) -> Ignored:
    """`item` with the names of the candidates that it refers to in its reason."""
    if not item.refers_to:
        return item
    series = {part.series_uid for candidate in candidates for part in candidate.parts or (candidate,)}
    names = [
        candidate.name
        for candidate in candidates
        if any(part.series_uid in item.refers_to for part in candidate.parts or (candidate,))
    ]
    absent = len(set(item.refers_to) - series)
    said = [*names, *([f"{absent} series that {'is' if absent == 1 else 'are'} not here"] if absent else [])]
    return replace(item, reason=f"{item.reason}; refers to {', '.join(said)}")


def _different_names(candidates: Sequence[Candidate], root: Path) -> Iterator[Candidate]:
    """Candidates whose names are all different, also where a file system ignores case.

    Those of one name all get a hash of their relative path, so that a name doesn't depend on which was found first;
    where that is the same as well, of the paths of their files.
    """

    def hashed(candidates: Sequence[Candidate], paths: Callable[[Candidate], Sequence[Path]]) -> list[Candidate]:
        times = Counter(candidate.name.lower() for candidate in candidates)
        return [
            replace(candidate, name=f"{candidate.name}-{digest8(relative(path, root) for path in paths(candidate))}")
            if times[candidate.name.lower()] > 1
            else candidate
            for candidate in candidates
        ]

    apart = hashed(candidates, lambda candidate: [candidate.path])
    yield from hashed(apart, lambda candidate: sorted(candidate.files))
