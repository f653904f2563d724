"""TensorBoard's log of a run: scalars, and slices of one case with outlines. Written where tensorboard is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.report.comparison import draw_comparison
from volseg.training.checkpoint import Progress
from volseg.training.heldout import predict_case
from volseg.training.loop import Report, Trainer
from volseg.training.report import shown_volume

#: What to say once where it isn't.
ABSENT = "tensorboard isn't installed: progress.csv and curves.png alone are written (pip install 'volseg[train]')"


class Events:
    """One fold's log.

    Parameters
    ----------
    folder
        Folder of the fold; the log lies in ``tensorboard/`` below it.
    step
        Step that the run goes on from: what an earlier process logged after it is dropped by the viewer.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def scalars(self, row: dict[str, Any]) -> None:
        """Every number of a row of progress."""
        for name, value in row.items():
            if name not in ("step", "seconds") and value is not None:
                group = "Dice" if name.startswith("dice") else "training"
                self.writer.add_scalar(f"{group}/{name}", value, row["step"])
        self.writer.flush()

    def picture(self, name: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """(height, width, 3) picture."""
        self.writer.add_image(name, pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def logged(trainer: Trainer, events: Events) -> Report:
    """The trainer's report, which also goes into the log; at validations and at the end with a picture of one case."""
    inner, example = trainer.report, (*trainer.validation, *trainer.training)[0]
    scan = shown_volume(example)

    def report(progress: Progress, row: dict[str, Any]) -> None:
        events.scalars(row)
        if row["dice"] is not None or progress.step == progress.total:
            mask = predict_case(example, trainer.recipe, trainer.engine())
            picture = draw_comparison(scan, mask, example.reference, f"{example.name}, step {progress.step}")
            events.picture("example", np.asarray(picture), progress.step)
        inner(progress, row)

    return report


def installed() -> bool:
    """Whether tensorboard is there."""
    return importlib.util.find_spec("tensorboard") is not None


def open_events(folder: Path, step: int) -> Events | None:
    """The log, or None where tensorboard isn't installed."""
    return Events(folder, step) if installed() else None
