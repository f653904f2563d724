"""``volseg convert``: a mask or a scan as another format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from volseg.volume import Label


def convert(
    path: Annotated[Path, typer.Argument(metavar="MASK|SCAN", help="A file, or a folder with a series or masks.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="What to write; the ending chooses the format."),
    ],
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="SOURCE", help="The scan that a mask belongs to: a file or a series."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FORMAT", help="nifti, seg, rtstruct, nrrd or metaimage; default: by the ending."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Take the labels' names, codes and colours from this model."),
    ] = None,
) -> None:
    """Write a mask or a scan as another format, every voxel where it was.

    Masks: NIfTI, NRRD, MetaImage, DICOM SEG and RTSTRUCT, both ways. Scans: to NIfTI, NRRD and MetaImage.
    """
    from volseg.export.convert import convert

    notes = convert(path, output, like=like, to=to, labels=() if model is None else _labels_of(model))
    for note in notes:
        print(f"{output}: {note}", file=sys.stderr)


def _labels_of(model: str) -> tuple[Label, ...]:
    from volseg.models import model_path
    from volseg.models.folder import read_model

    return read_model(model_path(model)).manifest.recipe.label_table()
