"""Files of one header and one block of voxels: NIfTI, NRRD and MetaImage.

A format is a module that reads its header, and an entry in `FORMATS`.
"""

from __future__ import annotations

from pathlib import Path

from volseg.loaders.formats.metaimage import METAIMAGE
from volseg.loaders.formats.nifti import NIFTI
from volseg.loaders.formats.nrrd import NRRD
from volseg.loaders.formats.voxel_file import Format, ending

__all__ = ["ENDINGS", "FORMATS", "METAIMAGE", "NIFTI", "NRRD", "Format", "format_of", "stem"]

FORMATS: tuple[Format, ...] = (NIFTI, NRRD, METAIMAGE)
#: What the names of all their files end in.
ENDINGS = tuple(ending for each in FORMATS for ending in each.endings)


def format_of(path: Path) -> Format | None:
    """The format that a file claims to be of by its name."""
    return next((each for each in FORMATS if each.claims(path)), None)


def stem(path: Path) -> str:
    """File name without the ending of a format; as it is where it has none."""
    return path.name[: len(path.name) - len(ending(path, ENDINGS))]
