"""A mask as a file whose ending names the format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from volseg.errors import GeometryError, UsageError
from volseg.export.outputs import MaskFormat, formats
from volseg.geometry import AxisMap
from volseg.volume import LabelVolume, Volume


def save(mask: LabelVolume, path: str | Path, *, like: Volume | None = None) -> tuple[str, ...]:
    """Write a segmentation; the file's ending chooses the format.

    Parameters
    ----------
    mask
        The segmentation.
    path
        File to write; its folder exists. Its ending chooses the format, the longest that fits: ``.nii.gz`` is NIfTI,
        ``.dcm`` DICOM SEG, ``.rtstruct.dcm`` RTSTRUCT, and so on, as `volseg.export.outputs` lists them.
    like
        The scan, where the segmentation doesn't come from one (`volseg.load` reads it). The file is written as that
        scan is stored: a mask whose axes are permuted or flipped against it is turned, no voxel changes its place.

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
    path = Path(path)
    return format_of(path).save(mask if like is None else placed_like(mask, like), path)


def format_of(path: Path) -> MaskFormat:
    """The format that a file name's ending chooses.

    Raises
    ------
    UsageError
        It chooses none, or its folder doesn't exist.
    """
    by_ending = {ending: output for output in formats().values() for ending in output.endings}
    fitting = [ending for ending in by_ending if path.name.lower().endswith(ending)]
    if not fitting:
        raise UsageError(f"{path}: no format has this ending; give one of {', '.join(by_ending)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    # Of ".dcm" and ".rtstruct.dcm", the longer is meant.
    return by_ending[max(fitting, key=len)]


def placed_like(mask: LabelVolume, scan: Volume) -> LabelVolume:
    """`mask` as a segmentation of a scan; axes that are stored otherwise are turned, exactly.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: the scan lies on another grid.
    """
    # A mask of a scan with a tilt lies on its stored slices.
    grid = scan.source.stored or scan.geometry
    axes = AxisMap.between(mask.geometry.orientation, grid.orientation)
    difference = mask.geometry.turned(axes).difference(grid)
    if difference is not None:
        raise GeometryError(f"the mask isn't on this scan's grid: {difference}", code="grid-mismatch")
    source = replace(scan.source, stored=None)
    return replace(mask.mapped(axes.apply, grid), source=source)
