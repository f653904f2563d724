"""Label maps, folders of masks, DICOM SEG and RTSTRUCT as a `LabelVolume` on the grid of the image that they belong to.

One function for whoever reads labels: training, evaluation, conversion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from volseg.errors import GeometryError, InputError, UsageError
from volseg.labels.canvas import any_colour, plain, renumbered, values_in
from volseg.labels.dicom_object import Kind, kind_of
from volseg.labels.lattice import onto
from volseg.labels.masks import is_mask_folder, read_masks
from volseg.labels.rtstruct import read_rtstruct
from volseg.labels.seg import read_seg
from volseg.loaders.formats import format_of
from volseg.loaders.formats.nrrd import Segment, segments
from volseg.loaders.listing import load
from volseg.volume import Label, LabelVolume, Source, Volume, Voxels

#: Values of a label map may be off whole numbers by this much: half a step where bytes or 16 bits scale to labels. What
#: was interpolated is further off somewhere on every border.
WHOLE = 0.005
_HIGHEST = np.iinfo(np.uint16).max


def load_labels(path: Path, image: Volume, *, names: Sequence[str] | None = None) -> LabelVolume:
    """Read the labels of an image.

    Parameters
    ----------
    path
        DICOM SEG, DICOM RTSTRUCT, or a label map: whatever `volseg.load` reads. Or a folder that holds one of these, or
        a folder called ``segmentations`` with a binary NIfTI mask a structure, as TotalSegmentator has them.
    image
        The scan that the labels belong to.
    names
        Names of the segments, regions or masks to take from a SEG, RTSTRUCT or folder of masks, whatever the case of
        their letters. Where they overlap, the later name is on top. A label map has no names, and all of it is taken.

    Returns
    -------
    LabelVolume
        On the very grid of `image`, in whatever order the file stores its voxels. Values are segment numbers of a SEG,
        regions' places in the order of ROI numbers of an RTSTRUCT (from 1), masks' in the alphabet, and what a label
        map holds. Its source is that of the image, its notes what is unusual about the labels.

    Raises
    ------
    UsageError
        The path doesn't exist, or holds several files of labels.
    GeometryError
        Codes ``grid-mismatch`` (the voxels, frames or contours aren't on the image's voxels), ``mixed-frame``,
        ``missing-geometry``, ``duplicate-slice`` (two frames of one segment at one position) and ``not-3d``.
    InputError
        Codes ``overlap`` (segments that overlap, and `names` doesn't say which to take), ``unreadable``,
        ``unsupported`` (values that are no labels; none of `names` is there, or a mask of one isn't), ``no-image``.
    """
    file, kind = _find(Path(path))
    if kind == "seg":
        return read_seg(file, image, names)
    if kind == "rtstruct":
        return read_rtstruct(file, image, names)
    if kind == "masks":
        return read_masks(file, image, names)
    labels = load_label_map(file)
    return on_grid(labels, image, "not on the grid of its image", file)


def on_grid(labels: LabelVolume, image: Volume, wrong: str, path: Path) -> LabelVolume:
    """Labels of a label map on the very grid of `image`, in its order of voxels, with notes on both.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: it starts with `wrong`.
    """
    where = f" {image.source.path}" if image.source.path else ""
    array, notes = onto(labels.array, labels.geometry, image.geometry, f"{wrong}{where}", path)
    source = replace(image.source, notes=(*labels.source.notes, *notes))
    return replace(labels, array=array, geometry=image.geometry, source=source)


def load_labels_as(path: Path, image: Volume, table: Sequence[Label]) -> LabelVolume:
    """Read the labels of an image with the values and names of `table`.

    A SEG's segments, an RTSTRUCT's regions and masks are matched by name: what the table doesn't name is background,
    and what the file lacks is empty, with a note; a mask may not be absent. Where structures overlap, the table's later
    label is on top. A label map's values are matched by number, and must be in the table; by name where it has names,
    as 3D Slicer's ``.seg.nrrd`` does, and all of them are in the table.

    Raises
    ------
    UsageError, RefusalError
        As `load_labels`; ``unsupported`` also for a value that the table doesn't have.
    """
    by_value = tuple(sorted(table, key=lambda label: label.value))
    if is_label_map(path):
        labels = load_labels(path, image)
        if renamed := _by_name(labels, table):
            return replace(labels, array=renamed[0], labels=by_value, source=renamed[1])
        check_values(labels, {label.value for label in table}, path)
        array = labels.array
    else:
        labels = load_labels(path, image, names=[label.name for label in table])
        array = renumbered(labels, {label.name: label.value for label in table})
    return replace(labels, array=array, labels=by_value)


def _by_name(labels: LabelVolume, table: Sequence[Label]) -> tuple[npt.NDArray[np.unsignedinteger], Source] | None:
    """Voxels with the table's values, where a label map has names of its own and the table has them all.

    3D Slicer numbers segments in the order in which they were drawn, so that their numbers say little.
    """
    wanted = {plain(label.name): label.value for label in table}
    named = {label.value: plain(label.name) for label in labels.labels if label.name != f"label {label.value}"}
    if not named or not set(named.values()) <= wanted.keys() or not values_in(labels.array) <= named.keys():
        return None
    moved = any(wanted[name] != value for value, name in named.items())
    note = ("values are those that the labels' names have, and not the file's",) if moved else ()
    source = replace(labels.source, notes=(*labels.source.notes, *note))
    return renumbered(labels, {label.name: label.value for label in table}), source


def check_values(mask: LabelVolume, allowed: set[int], path: Path) -> None:
    """Refuse values that nobody knows, with code ``unsupported``."""
    if unknown := sorted(values_in(mask.array) - allowed):
        raise InputError(
            f"holds the label values {unknown}, which aren't among those expected, {sorted(allowed)}",
            code="unsupported",
            path=path,
        )


def is_label_map(path: Path) -> bool:
    """Whether a path leads to a label map on a grid of its own, and not to masks, SEG or RTSTRUCT."""
    return _find(path)[1] is None


def load_label_map(path: Path) -> LabelVolume:
    """Read a label map on its own grid; a label for each value that it holds.

    Voxels may be stored as floating-point numbers if their values are whole to within `WHOLE`: a header that scales
    integers makes 1.00003 of 1. The source's notes are those on the labels.

    Raises
    ------
    GeometryError
        Code ``not-3d`` and others: no volume of one value a voxel.
    InputError
        Code ``unsupported``: a value that is negative, not whole, or above 65535.
    """
    volume = load(path)
    named = _segments(volume)
    if volume.channels != 1:
        layers = f", the layers of {', '.join(segment.name for segment in named)}" if named else ""
        raise GeometryError(
            f"a label map has one value a voxel, this holds {volume.channels}{layers}; save one layer, without overlap",
            code="not-3d",
            path=path,
        )
    array, notes = _whole(volume.array, path)
    known = {segment.value: segment for segment in named if 0 < segment.value <= _HIGHEST}
    labels = tuple(_label(value, known.get(value)) for value in sorted(values_in(array) | known.keys()))
    return LabelVolume(array, volume.geometry, labels, replace(volume.source, notes=notes))


def _segments(volume: Volume) -> tuple[Segment, ...]:
    """What 3D Slicer says of the values of a label map."""
    return segments(volume.source.path) if volume.source.kind == "nrrd" and volume.source.path else ()


def _label(value: int, segment: Segment | None) -> Label:
    if segment is None:
        return Label(value=value, name=f"label {value}", colour=any_colour(value))
    red, green, blue = (round(255 * part) for part in segment.colour or (0, 0, 0))
    colour = any_colour(value) if segment.colour is None else (red, green, blue)
    return Label(value=value, name=segment.name, colour=colour)


def _whole(array: Voxels, path: Path) -> tuple[npt.NDArray[np.unsignedinteger], tuple[str, ...]]:
    """Unsigned integers of a label map's voxels, with a note where they were rounded."""
    notes: tuple[str, ...] = ()
    if np.issubdtype(array.dtype, np.floating):
        whole = np.rint(array)
        off = np.abs(array - whole)
        if (wrong := array[off > WHOLE]).size:
            raise InputError(
                f"no label map: {wrong.size} voxels aren't whole numbers, the first is {float(wrong[0]):.9g} (up to"
                f" {WHOLE} off is rounded); labels are integers, resampled with nearest neighbour",
                code="unsupported",
                path=path,
            )
        if furthest := float(off.max(initial=0)):
            notes = (f"label values are up to {furthest:.2g} off whole numbers, and rounded",)
        array = whole
    low, high = array.min(), array.max()
    if low < 0 or high > _HIGHEST:
        raise InputError(
            f"no label map: values from {low:g} to {high:g}; labels are 0 to {_HIGHEST}", code="unsupported", path=path
        )
    return array.astype(np.uint16), notes


def _find(path: Path) -> tuple[Path, Kind | Literal["masks"] | None]:
    """The file that holds labels, and its kind; None for a label map, which may be a folder of DICOM images."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if not path.is_dir():
        return path, kind_of(path)
    if is_mask_folder(path):
        return path, "masks"
    maps: list[Path] = []
    objects: list[tuple[Path, Kind]] = []
    for file in _files(path):
        if format_of(file) is not None:
            maps.append(file)
        elif kind := kind_of(file):
            objects.append((file, kind))
    if len(maps) + len(objects) > 1:
        found = sorted(str(file.relative_to(path)) for file in (*maps, *(file for file, _ in objects)))
        raise UsageError(f"{path}: holds {len(found)} files of labels ({', '.join(found[:5])}); give the path of one")
    return objects[0] if objects else (path, None)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))
