"""From any file of a mask or a scan that volseg reads to any that it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from volseg.errors import UsageError
from volseg.export.outputs import MaskFormat, formats
from volseg.export.save import format_of, placed_like
from volseg.labels.read import is_label_map, load_label_map, load_labels
from volseg.loaders import load
from volseg.volume import Label, LabelVolume

#: Ending of 3D Slicer's segmentations: what is written under such a name is a mask.
SEGMENTATION = ".seg.nrrd"


def convert(
    path: Path, out: Path, *, like: Path | None = None, to: str | None = None, labels: tuple[Label, ...] = ()
) -> tuple[str, ...]:
    """Write what is at `path` as another format.

    It is taken as a mask where it can't be a scan (DICOM SEG, RTSTRUCT, a folder of masks), where `like` names its scan
    or `labels` its labels, and where the new format holds masks alone; else as a scan, voxel for voxel.

    Parameters
    ----------
    path
        A mask or a scan: a file, or a folder that holds a series or masks.
    out
        The file to write; its folder exists.
    like
        The scan that a mask belongs to. The mask is written as that scan is stored.
    to
        The format's name in `volseg.export.outputs`; None: the one that `out`'s ending chooses.
    labels
        Names, codes and colours for values of the mask. Values that aren't among them keep what the file says.

    Returns
    -------
    tuple of str
        Notes on what was changed or left out.

    Raises
    ------
    UsageError
        No such format; a mask that needs `like`.
    RefusalError
        What is at `path` or `like` can't be read, or lies on another grid.
    ExportError
        The format can't hold it.
    """
    chosen = _format(out, to)
    if like is None and not labels and _holds_scan(chosen, out) and is_label_map(path):
        scan = load(path)
        return (*scan.source.notes, *chosen.save_scan(scan, out))
    mask = _named(_mask(path, like), labels)
    return (*mask.source.notes, *chosen.save(mask, out))


def _format(out: Path, to: str | None) -> MaskFormat:
    if to is None:
        return format_of(out)
    if to not in formats():
        raise UsageError(f"no format {to}; masks are written as {', '.join(formats())}")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}")
    return formats()[to]


def _holds_scan(chosen: MaskFormat, out: Path) -> bool:
    return chosen.of_scans and not out.name.lower().endswith(SEGMENTATION)


def _mask(path: Path, like: Path | None) -> LabelVolume:
    if is_label_map(path):
        mask = load_label_map(path)
        return mask if like is None else placed_like(mask, load(like))
    if like is None:
        raise UsageError(f"{path}: SEG, RTSTRUCT and folders of masks lie on a scan's voxels; name it with --like")
    return load_labels(path, load(like))


def _named(mask: LabelVolume, labels: tuple[Label, ...]) -> LabelVolume:
    """`mask` with the names of `labels`, matched by value."""
    table = {label.value: label for label in (*mask.labels, *labels)}
    return replace(mask, labels=tuple(table[value] for value in sorted(table)))
