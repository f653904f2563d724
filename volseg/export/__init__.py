"""Masks as files that other programs read. Each format is a module with ``write(label_volume, path) -> notes``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from volseg.errors import GeometryError, UsageError
from volseg.geometry import AxisMap
from volseg.volume import LabelVolume

#: Writes a segmentation to a path and returns notes, a sentence each; ExportError where the format can't hold it.
Writer = Callable[[LabelVolume, Path], tuple[str, ...]]


def _write_nifti(label_volume: LabelVolume, path: Path) -> tuple[str, ...]:
    from volseg.export.nifti import write

    return write(label_volume, path)


def _write_seg(label_volume: LabelVolume, path: Path) -> tuple[str, ...]:
    # Imported here, since highdicom takes a second.
    from volseg.export.dicom_seg import write

    return write(label_volume, path)


#: The formats by the names that ``--format`` takes: name of the file in a case's folder, and its writer.
FORMATS: dict[str, tuple[str, Writer]] = {
    "nifti": ("mask.nii.gz", _write_nifti),
    "seg": ("mask.seg.dcm", _write_seg),
}

#: The format that a file name's ending chooses.
ENDINGS = {".nii": "nifti", ".nii.gz": "nifti", ".dcm": "seg"}


def save(label_volume: LabelVolume, path: Path, like: Path | None = None) -> tuple[str, ...]:
    """Write `label_volume` in the format that the file's ending names.

    Parameters
    ----------
    label_volume
        The segmentation.
    path
        Where to; its folder exists.
    like
        The scan's file or folder, where the segmentation doesn't come from one. The file is written as that scan is
        stored: a mask whose axes are permuted or flipped against it is turned, no voxel changes its place.

    Returns
    -------
    tuple of str
        Notes on what was changed or left out.

    Raises
    ------
    UsageError
        An ending that names no format, or a folder that doesn't exist.
    ExportError
        The format can't be written for this segmentation.
    GeometryError
        Code ``grid-mismatch``: `like` lies on another grid.
    """
    name = next((name for ending, name in ENDINGS.items() if path.name.lower().endswith(ending)), None)
    if name is None:
        raise UsageError(f"{path}: no format has this ending; give one of {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if like is not None:
        label_volume = _placed_like(label_volume, like)
    _, write = FORMATS[name]
    return write(label_volume, path)


def _placed_like(label_volume: LabelVolume, like: Path) -> LabelVolume:
    """`label_volume` as a segmentation of the scan at `like`; axes that are stored otherwise are turned, exactly."""
    from volseg.loaders import load

    # A mask of a scan with a tilt lies on its stored slices.
    scan = load(like, resample_tilt=True)
    grid = scan.source.stored or scan.geometry
    axes = AxisMap.between(label_volume.geometry.orientation, grid.orientation)
    difference = label_volume.geometry.turned(axes).difference(grid)
    if difference is not None:
        raise GeometryError(f"the mask isn't on this scan's grid: {difference}", code="grid-mismatch", path=like)
    source = replace(scan.source, stored=None)
    return replace(label_volume, array=axes.apply(label_volume.array), geometry=grid, source=source)
