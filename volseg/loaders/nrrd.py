"""NRRD files: ``.nrrd``, and ``.nhdr`` with the voxels in another file; `nrrd_header` reads the header."""

from __future__ import annotations

from pathlib import Path

from volseg.loaders import voxel_file
from volseg.loaders.candidate import Candidate
from volseg.loaders.nrrd_header import layout
from volseg.volume import Volume

_SUFFIXES = (".nrrd", ".nhdr")


def is_nrrd_name(path: Path) -> bool:
    """Whether the file claims to be NRRD."""
    return path.suffix.lower() in _SUFFIXES


def stem(path: Path) -> str:
    """File name without ``.nrrd`` or ``.nhdr``; a segmentation's ``x.seg.nrrd`` is ``x.seg``."""
    return path.stem


def describe(path: Path) -> Candidate:
    """Candidate from one file, by its header; damage is noticed by the size of the file that holds the voxels."""
    return voxel_file.describe(path, stem(path), "nrrd", layout)


def read(candidate: Candidate) -> Volume:
    """Voxels of a NRRD candidate, each file read once.

    Returns
    -------
    Volume
        [i, j, k] or [c, i, j, k]; integers stay what they are, all else is float32.

    Raises
    ------
    InputError
        Codes ``unreadable`` and ``not-finite``.
    """
    return voxel_file.read(candidate, "nrrd", layout)
