"""A folder of binary masks, one file a structure and called like it, as labels on the grid of an image.

TotalSegmentator's data set keeps its labels so: ``s0000/segmentations/liver.nii.gz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from volseg.errors import GeometryError, InputError, UsageError
from volseg.labels.canvas import Canvas, Mask, any_colour, plain
from volseg.labels.lattice import onto
from volseg.loaders.formats import NIFTI
from volseg.loaders.layouts import MASKS
from volseg.loaders.listing import load
from volseg.volume import Label, LabelVolume, Volume

#: Names that a message lists.
_LISTED = 5


def is_mask_folder(path: Path) -> bool:
    """Whether a path leads to a folder of masks."""
    return path.name == MASKS and path.is_dir() and bool(mask_files(path))


def mask_files(folder: Path) -> dict[str, Path]:
    """Masks of a folder by the names of their structures, in the order of these.

    Raises
    ------
    UsageError
        Two files are called alike.
    """
    found: dict[str, Path] = {}
    known: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not NIFTI.claims(path) or path.name.startswith("."):
            continue
        name = NIFTI.stem(path)
        if (other := known.setdefault(plain(name), path)) is not path:
            raise UsageError(f"{folder}: two masks of one structure, {other.name} and {path.name}; keep one")
        found[name] = path
    return dict(sorted(found.items()))


def read_masks(folder: Path, image: Volume, names: Sequence[str] | None = None) -> LabelVolume:
    """Read masks onto the grid of `image`.

    Parameters
    ----------
    folder
        Folder of masks. A structure that isn't in the scan has an empty mask: a file that is absent is no empty mask.
    image
        Image whose grid they must be on.
    names
        Structures to take, other files aren't read; where masks overlap, the later name is on top. None: all of them.

    Returns
    -------
    LabelVolume
        Values are the places of the structures in the alphabet, from 1.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``; ``not-3d``: several values a voxel.
    InputError
        Code ``overlap``: masks overlap, and `names` doesn't say which is on top. Code ``unsupported``: a file of one of
        `names` is absent, or one holds other values than 0 and another. And whatever `volseg.load` raises.
    """
    files = mask_files(folder)
    held = {plain(name) for name in files}
    if absent := [name for name in names or () if plain(name) not in held]:
        raise InputError(
            f"no mask is called {_listed(absent)}; there are {_listed(list(files))}. A structure that isn't in the scan"
            " needs an empty mask: without one nothing says that somebody looked",
            code="unsupported",
            path=folder,
        )
    labels = [Label(value=value, name=name, colour=any_colour(value)) for value, name in enumerate(files, start=1)]
    canvas = Canvas(labels, image.geometry.shape, names, folder, "mask")
    for label in labels:
        if canvas.takes(label.value):
            mask, notes = _mask(files[label.name], image)
            for note in notes:
                canvas.note(note)
            for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
                canvas.paint(label.value, (slice(None), slice(None), k), mask[:, :, k])
    return canvas.finish(image)


def _mask(path: Path, image: Volume) -> tuple[Mask, tuple[str, ...]]:
    """Voxels [i, j, k] of one structure, with notes on how they were put onto the image's grid."""
    volume = load(path)
    if volume.channels != 1:
        raise GeometryError(f"a mask has one value a voxel, this holds {volume.channels}", code="not-3d", path=path)
    where = f" {image.source.path}" if image.source.path else ""
    own = volume.array.reshape(volume.geometry.shape)
    array, notes = onto(own, volume.geometry, image.geometry, f"not on the grid of its image{where}", path)
    inside: Mask = array != 0
    values = array[inside]
    if values.size and values.min() != values.max():
        raise InputError(
            f"no mask of one structure: values from {values.min():g} to {values.max():g} beside 0; give 0 and 1",
            code="unsupported",
            path=path,
        )
    return inside, notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(repr(name) for name in names[:_LISTED]) + more
