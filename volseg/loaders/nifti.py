"""NIfTI files: which names claim to be one, and their candidates and volumes; `nifti_header` reads the header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from volseg.loaders import archive, voxel_file
from volseg.loaders.candidate import Candidate
from volseg.volume import Volume

_SUFFIXES = (".nii.gz", ".nii")
_PAIR_SUFFIXES = (".hdr.gz", ".img.gz", ".hdr", ".img")


def is_nifti_name(path: Path) -> bool:
    """Whether the file claims to be NIfTI."""
    return path.name.lower().endswith(_SUFFIXES)


def is_pair(path: Path) -> bool:
    """Whether the file is the header or the voxels of an Analyze or NIfTI pair, ``.hdr`` and ``.img``.

    Other programs use these endings too: the header's first bytes decide, and without a header there is no pair.
    """
    if (header := pair_header(path)) is None:
        return False
    from volseg.loaders.nifti_header import starts_like_nifti

    return starts_like_nifti(header)


def pair_header(path: Path) -> Path | None:
    """The ``.hdr`` file beside an ``.img`` file, or a ``.hdr`` file itself; None for other names."""
    suffix = _suffix(path, _PAIR_SUFFIXES)
    if suffix is None:
        return None
    if suffix.startswith(".hdr"):
        return path
    name = path.name[: -len(suffix)]
    upper = suffix.isupper()
    beside = (path.with_name(name + (ending.upper() if upper else ending)) for ending in (".hdr", ".hdr.gz"))
    return next((header for header in beside if archive.exists(header)), None)


def stem(path: Path) -> str:
    """File name without ``.nii``, ``.nii.gz`` or the ending of a pair."""
    suffix = _suffix(path, _SUFFIXES + _PAIR_SUFFIXES)
    return path.name[: -len(suffix)] if suffix else path.name


def describe(path: Path) -> Candidate:
    """Candidate from one file, by its header; damage is noticed by the file's size."""
    # Imported here and below, since it takes nibabel along, and most folders hold DICOM.
    from volseg.loaders.nifti_header import layout

    return voxel_file.describe(path, stem(path), "nifti", layout)


def read(candidate: Candidate) -> Volume:
    """Voxels of a NIfTI candidate, in one pass over its file.

    Returns
    -------
    Volume
        [i, j, k] or [c, i, j, k]; integers stay what they are unless the header scales them, all else is float32.

    Raises
    ------
    InputError
        Codes ``unreadable`` and ``not-finite``.
    """
    from volseg.loaders.nifti_header import layout

    return voxel_file.read(candidate, "nifti", layout)


def _suffix(path: Path, suffixes: Sequence[str]) -> str | None:
    """The one of `suffixes` that the name ends in, as it is spelt there."""
    found = next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)
    return found and path.name[-len(found) :]
