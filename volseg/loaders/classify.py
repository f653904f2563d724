"""What a file is: the image of a format, one DICOM image of a series, or nothing to segment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from volseg.errors import InputError, RefusalError
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate, Ignored
from volseg.loaders.dicom import pixels
from volseg.loaders.dicom.header import Header, read_header
from volseg.loaders.formats import NIFTI, format_of
from volseg.loaders.formats.nifti import is_pair, pair_header
from volseg.text import digest8

#: What a file turns out to be.
Found = Header | Ignored | Candidate


#: What a file starts with that Git LFS left in place of a large one, and how long it is at most.
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024


def classify(path: Path) -> Found:
    """Tell the file of an image, the header of a DICOM file and anything else apart, by headers alone."""
    found = _classified(path)
    if isinstance(found, Candidate) and found.code == "unreadable" and _is_pointer(path):
        reason = "a Git LFS pointer in place of the file itself; run 'git lfs pull' in its repository"
        return replace(found, reason=reason)
    return found


def _is_pointer(path: Path) -> bool:
    try:
        with archive.read_errors(path), archive.open_binary(path) as file:
            return archive.size_of(path) <= _POINTER_BYTES and file.read(len(_POINTER)) == _POINTER
    except InputError:
        return False


def _classified(path: Path) -> Found:
    if (named := format_of(path)) is not None:
        return named.describe(path)
    if (header := pair_header(path)) is not None and is_pair(path):
        # A pair is one image, and its header stands for it.
        return NIFTI.describe(path) if path == header else Ignored(path, f"the voxels of {header.name}")
    try:
        return read_header(path) or Ignored(path, "no image that volseg reads")
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            return Ignored(path, error.reason)
        return _damaged(path, error)


def _damaged(path: Path, error: RefusalError) -> Candidate:
    """Candidate from a file that claims to be DICOM and can't be read."""
    return Candidate(
        # Not the file's name: an export may name files after patients.
        name=f"unreadable-{digest8([path.name])}",
        kind="dicom",
        modality=None,
        description=path.name,
        path=path,
        files=(path,),
        series_uid=None,
        series_number=None,
        geometry=None,
        channels=1,
        usable=False,
        reason=error.reason,
        code=error.code,
        reader=pixels.read,
    )
