"""A picture of the mask over the scan."""

from __future__ import annotations

from pathlib import Path

from volseg.export.outputs import FinishedCase, Written
from volseg.inference import on_grid
from volseg.report.pictures import write_preview
from volseg.results import PREVIEW


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Draw what the network saw: a picture of a tilted series' own, leaning slices would be skewed."""
    write_preview(case.scan, on_grid(case.mask, case.scan.geometry), folder / PREVIEW)
    return Written()
