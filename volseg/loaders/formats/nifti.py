"""NIfTI files, and the pairs of header and voxels of NIfTI and Analyze; `nifti_header` reads the header."""

from __future__ import annotations

from pathlib import Path

from volseg.loaders import archive
from volseg.loaders.formats.voxel_file import Format, Layout, ending


def _layout(path: Path) -> Layout:
    # Imported here and below, since it takes nibabel along, and most folders hold DICOM.
    from volseg.loaders.formats.nifti_header import layout

    return layout(path)


NIFTI = Format(
    kind="nifti",
    endings=(".nii.gz", ".nii"),
    shared_endings=(".hdr.gz", ".img.gz", ".hdr", ".img"),
    layout=_layout,
)


def is_pair(path: Path) -> bool:
    """Whether the file is the header or the voxels of an Analyze or NIfTI pair, ``.hdr`` and ``.img``.

    Other programs use these endings too: the header's first bytes decide, and without a header there is no pair.
    """
    if (header := pair_header(path)) is None:
        return False
    from volseg.loaders.formats.nifti_header import starts_like_nifti

    return starts_like_nifti(header)


def pair_header(path: Path) -> Path | None:
    """The ``.hdr`` file beside an ``.img`` file, or a ``.hdr`` file itself; None for other names."""
    suffix = ending(path, NIFTI.shared_endings)
    if not suffix:
        return None
    if suffix.startswith(".hdr"):
        return path
    name = path.name[: -len(suffix)]
    upper = suffix.isupper()
    beside = (path.with_name(name + (other.upper() if upper else other)) for other in (".hdr", ".hdr.gz"))
    return next((header for header in beside if archive.exists(header)), None)
