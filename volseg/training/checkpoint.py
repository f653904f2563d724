"""What a run keeps on disk: checkpoints, and the table of its progress."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volseg.errors import TrainingError
from volseg.files import write_atomically

LAST, BEST = "last.pt", "best.pt"


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    step, total
        Steps done, and those that the run will have.
    best, best_step
        Highest mean Dice in validation and its step; None before the first one.
    history
        Rows, one a validation or report: step, seconds, loss, learning rate, Dice by label and mean (None where
        unknown).
    """

    step: int = 0
    total: int = 0
    best: float | None = None
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a kill at any moment leaves the old file or the new one, whole."""
    data = io.BytesIO()
    torch.save(state, data)
    try:
        write_atomically(path, data.getvalue())
    except OSError as error:
        raise TrainingError(f"{path}: the checkpoint can't be written: {error}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; no code in it is run."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: there is no such checkpoint to go on from") from error
    except Exception as error:  # torch.load raises what unpickling raises: anything
        raise TrainingError(f"{path}: the checkpoint can't be read: {type(error).__name__}: {error}") from error
    return state


def write_progress(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write the table of a run's progress as CSV."""
    if not history:
        return
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, table.getvalue().encode())


class MovingAverage:
    """Exponential moving average of a network's weights and buffers (Polyak averaging).

    The decay grows from 0.1 towards the given one as ``(1 + t) / (10 + t)``, so that the first weights are soon
    forgotten.
    """

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in state.items()}
        self.updates = 0

    def update(self, state: dict[str, Tensor]) -> None:
        """Move towards `state`; whole numbers (batch counters) are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in state.items():
            kept = self.state[name]
            if value.is_floating_point():
                kept.lerp_(value.detach(), 1 - decay)
            else:
                kept.copy_(value)
