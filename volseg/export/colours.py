"""The labels' names and colours as tables of ITK-SNAP and 3D Slicer, for masks in formats without a place for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from volseg.export.outputs import FinishedCase, Written
from volseg.files import write_atomically
from volseg.volume import Label

#: Names of the files in a case's folder.
ITKSNAP, SLICER = "colours.itksnap.txt", "colours.slicer.ctbl"


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write both tables."""
    for name, lines in ((ITKSNAP, itksnap(case.mask.labels)), (SLICER, slicer(case.mask.labels))):
        write_atomically(folder / name, "".join(f"{line}\n" for line in lines).encode())
    return Written()


def itksnap(labels: Iterable[Label]) -> Iterator[str]:
    """Lines of a label description file (Segmentation > Import Label Descriptions): index, colour, opacity, shown."""
    yield "# ITK-SnAP Label Description File"
    yield '    0     0    0    0        0  0  0    "Clear Label"'
    for label in labels:
        red, green, blue = label.colour
        name = _one_line(label.name).replace('"', "'")
        yield f'{label.value:5} {red:5} {green:4} {blue:4}        1  1  1    "{name}"'


def slicer(labels: Iterable[Label]) -> Iterator[str]:
    """Lines of a colour table (Add Data, as a color table): value, name, red, green, blue, opacity."""
    yield "# Color table file"
    yield "0 Background 0 0 0 0"
    for label in labels:
        # Columns are separated by spaces; 3D Slicer shows underscores as such.
        name = "_".join(_one_line(label.name).split())
        yield " ".join(map(str, (label.value, name, *label.colour, 255)))


def _one_line(name: str) -> str:
    return " ".join(name.split()) or "unnamed"
