"""Volumes of the labels and what their voxels hold, for spreadsheets: ``volumes.csv``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from volseg.export.measures import Measures, measure
from volseg.export.outputs import FinishedCase, Written
from volseg.files import write_atomically
from volseg.results import TABLE

_COLUMNS = ("value", "name", "voxels", "volume_ml", "mean", "sd", "minimum", "maximum")
#: A name that begins so is a formula to spreadsheets.
_FORMULA = ("=", "+", "-", "@")


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write a row for each label. SD is that of all voxels (divided by N)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows(_row(found) for found in measure(case.mask, case.scan))
    # The mark at the beginning tells spreadsheets that the file is UTF-8.
    write_atomically(folder / TABLE, text.getvalue().encode("utf-8-sig"))
    return Written()


def _row(found: Measures) -> list[object]:
    values = found.values
    numbers = (values.mean, values.sd, values.minimum, values.maximum) if values else ()
    name = found.label.name
    shown = f"'{name}" if name.startswith(_FORMULA) else name
    return [found.label.value, shown, found.voxels, f"{found.volume_ml:.6g}", *(f"{number:.6g}" for number in numbers)]
