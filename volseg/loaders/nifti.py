"""NIfTI files: which names claim to be one, and their candidates and volumes; `nifti_header` reads the header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from volseg.errors import GeometryError, InputError, RefusalError
from volseg.loaders import archive, voxel_file
from volseg.loaders.candidate import Candidate, refusal
from volseg.loaders.nifti_header import layout, starts_like_nifti
from volseg.loaders.voxel_file import Layout
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
    return (header := pair_header(path)) is not None and starts_like_nifti(header)


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
    return voxel_file.describe(path, stem(path), "nifti", layout)


def describe_channels(name: str, files: Mapping[int, Path], channels: int) -> Candidate:
    """Candidate from the files of one case with several channels.

    Parameters
    ----------
    files
        By channel: ``x_0000`` is 0.
    channels
        How many there should be.
    """
    paths = tuple(files[index] for index in sorted(files))
    try:
        if sorted(files) != list(range(channels)):
            found = ", ".join(f"{index:04d}" for index in sorted(files))
            raise InputError(
                f"case {name} has the channels {found}; needed are 0000 to {channels - 1:04d}", code="channels"
            )
        layouts = []
        for path in paths:
            try:
                layouts.append(voxel_file.checked(path, layout))
            except RefusalError as error:
                raise refusal(f"{path.name}: {error.reason}", code=error.code) from error
        _check_channels(paths, layouts)
    except RefusalError as error:
        return voxel_file.candidate(name, "nifti", paths[0], paths, None, refused=error)
    return voxel_file.candidate(name, "nifti", paths[0], paths, layouts[0])


def read(candidate: Candidate) -> Volume:
    """Voxels of a NIfTI candidate, each file read once.

    Returns
    -------
    Volume
        [i, j, k] or [c, i, j, k]; integers stay what they are unless the header scales them, all else is float32.

    Raises
    ------
    InputError
        Codes ``unreadable`` and ``not-finite``.
    """
    return voxel_file.read(candidate, "nifti", candidate.files, layout)


def _suffix(path: Path, suffixes: Sequence[str]) -> str | None:
    """The one of `suffixes` that the name ends in, as it is spelt there."""
    found = next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)
    return found and path.name[-len(found) :]


def _check_channels(paths: Sequence[Path], layouts: Sequence[Layout]) -> None:
    for path, each in zip(paths, layouts, strict=True):
        if each.channels != 1:
            raise InputError(f"{path.name} holds {each.channels} channels itself; give one a file", code="channels")
        if difference := layouts[0].geometry.difference(each.geometry):
            raise GeometryError(
                f"{path.name} doesn't lie on the grid of {paths[0].name}: {difference}; resample it first",
                code="grid-mismatch",
            )
