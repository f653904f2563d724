"""Walk a path, and say for each image in it whether it can be segmented."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import InputError, UsageError
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate, Ignored
from volseg.loaders.channels import from_files, from_study
from volseg.loaders.classify import Found, classify
from volseg.loaders.dicom import series
from volseg.loaders.dicom.header import Header
from volseg.loaders.dicom.quiet import quiet
from volseg.loaders.layouts import without_labels, without_results
from volseg.text import digest8, relative
from volseg.volume import Volume

__all__ = ["Candidate", "Ignored", "Listing", "find", "load"]

if TYPE_CHECKING:
    from volseg.config import ChannelConfig

#: Files that are looked at, at the same time, where the drive is waited for: it answers several questions at once.
THREADS = 16
#: So many files are looked at first, one after another, and tell whether it is.
SAMPLE = 100
#: It is where that takes so many times longer than it is work.
WAITING = 3.0
#: Called with the number of files that were looked at, and with how many there are.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Listing:
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


def find(path: Path, *, channels: Sequence[ChannelConfig] = (), progress: Progress | None = None) -> Listing:
    """Find the images in a file or folder, reading headers only.

    Folders are searched to any depth, linked ones too, and so are ZIP and tar archives; hidden files and folders are
    passed over. A file that is damaged becomes a candidate that isn't usable; one that is no image is listed as
    ignored, and so are the labels of a dataset, where their images are found too, and what an earlier run wrote.

    Parameters
    ----------
    channels
        Channels of the model: with several, files of one folder that are called after them are one case (``x_0000``,
        ``x_0001``, ...; or by name, ``x-t1n``, ``x-t1c``, ...), and so are the series of a study that their rules name.
    progress
        A function that is called with the number of files that were looked at, and with how many there are.

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
    quiet()
    files, results = without_results(_files(path, ignored), root)
    found = _candidates(files, ignored, progress)
    scans, labels = without_labels(found)
    cases, spare = from_files(scans, channels)
    ignored += results + labels + spare
    named = _different_names(from_study(cases, channels), root)
    ordered = sorted(named, key=lambda candidate: (relative(candidate.path, root), candidate.name))
    # The voxels of a header in another file are no file of their own.
    voxels = {file for candidate in ordered for file in candidate.files}
    linked = (_linked(item, ordered) for item in ignored if item.path not in voxels)
    return Listing(root, tuple(ordered), tuple(sorted(linked, key=lambda item: item.path)))


def load(path: str | Path, *, resample_tilt: bool = False) -> Volume:
    """Read the one volume that a path holds.

    Parameters
    ----------
    path
        File of an image, or folder with one DICOM series or one such file.
    resample_tilt
        Whether a series with a tilt is taken as well, on straight slices; see `Candidate.load`.

    Raises
    ------
    UsageError
        The path doesn't exist, or holds several volumes; the message lists them.
    RefusalError
        It holds no image, or none that is usable; the message says why.
    """
    path = Path(path)
    listing = find(path)
    usable = [c for c in listing.candidates if c.usable or (c.code == "tilted" and resample_tilt)]
    if len(usable) == 1:
        return usable[0].load(resample_tilt=resample_tilt)
    if not listing.candidates:
        raise InputError(f"no image that volseg reads ({len(listing.ignored)} other files)", code="no-image", path=path)
    if len(listing.candidates) == 1:
        return listing.candidates[0].load()
    if usable:
        names = ", ".join(candidate.name for candidate in usable)
        raise UsageError(f"{path}: holds {len(usable)} volumes ({names}); give the path of one")
    first = listing.candidates[0]
    reasons = "; ".join(f"{relative(each.path, listing.root)}: {each.reason}" for each in listing.candidates)
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
        for path in (Path(folder, name) for name in sorted(files) if not name.startswith(".")):
            if path.is_file():
                yield path
            elif not path.exists():
                ignored.append(Ignored(path, "a link that leads nowhere"))


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
    groups, scattered = series.scattered(series.group_series(headers))
    candidates += scattered
    for images in groups:
        volumes, copies = series.describe(images)
        candidates += volumes
        ignored += copies
    return candidates


def _looked_at(paths: Sequence[Path], progress: Progress | None) -> Iterator[Found]:
    """What each file is, in the order of the paths."""
    wall, work = time.perf_counter(), time.thread_time()
    first = [classify(path) for path in paths[:SAMPLE]]
    # Python runs one thread at a time: several help only where it is the drive that is waited for.
    waits = time.perf_counter() - wall > WAITING * (time.thread_time() - work)
    with ThreadPoolExecutor(THREADS if waits else 1) as pool:
        rest = pool.map(classify, paths[SAMPLE:]) if waits else map(classify, paths[SAMPLE:])
        for number, found in enumerate(itertools.chain(first, rest), 1):
            if progress is not None:
                progress(number, len(paths))
            yield found


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
