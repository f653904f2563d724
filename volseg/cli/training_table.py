"""A table of a training's folds on the terminal, redrawn as they go on; plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from volseg.cli.progress import Line, progress_line

if TYPE_CHECKING:
    from volseg.training.checkpoint import Progress
    from volseg.training.heldout import FoldScores
    from volseg.training.loop import Report


@dataclass
class _Row:
    """One fold's line of the table."""

    state: str = "waits"
    cells: dict[str, str] = field(default_factory=dict)


class Board:
    """Where each fold stands.

    Parameters
    ----------
    names
        Names of the folds, in their order.
    labels
        Names of the labels.
    line
        The line that takes what is said, and all of it where there is no terminal.
    """

    def __init__(self, names: Sequence[str], labels: Sequence[str], line: Line) -> None:
        self.labels, self.line = labels, line
        self.rows = {name: _Row() for name in names}
        self.live: Live | None = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.live is None:
            self.line.say(text)
        else:
            self.live.console.print(text, markup=False, highlight=False)

    def state(self, name: str, text: str) -> None:
        """What a fold does now."""
        self.rows[name].state = text
        if self.live is None:
            self.line.update(f"{name}  {text}")
        else:
            self.live.update(self.table())

    def reporter(self, name: str) -> Report:
        """What the trainer of a fold calls."""
        begun: list[tuple[float, int]] = []

        def report(progress: Progress, row: dict[str, Any]) -> None:
            # Reading, planning and the steps before a resumed run's first aren't counted in the time of a step.
            begun.append((time.monotonic(), progress.step))
            seconds, steps = begun[-1][0] - begun[0][0], begun[-1][1] - begun[0][1]
            left = f"  {seconds / steps * (progress.total - progress.step) / 60:.1f} min left" if steps else ""
            if row["dice"] is not None:
                if self.live is None:
                    self.say(f"{name}  step {progress.step}/{progress.total}  Dice {row['dice']:.4f} on held-out cases")
                self.rows[name].cells |= {
                    key: f"{row[f'dice {key}']:.4f}" for key in self.labels if row[f"dice {key}"] is not None
                } | {"mean": f"{row['dice']:.4f}"}
            if progress.best is not None:
                self.rows[name].cells["best"] = f"{progress.best:.4f}"
            self.rows[name].cells["loss"] = f"{row['loss']:.4f}"
            shown = f"step {progress.step}/{progress.total}"
            self.state(name, f"{shown}{left}" if self.live else f"{shown}  loss {row['loss']:.4f}{left}")

        return report

    def table(self) -> Table:
        """The table as it stands."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        # Numbers are whole also where the terminal is narrow.
        table.add_column("", no_wrap=True, min_width=max(map(len, self.rows)))
        table.add_column("State", no_wrap=True)
        table.add_column("loss", justify="right", no_wrap=True, min_width=6)
        # Labels in columns of their own where they fit a terminal of 80 letters.
        names = self.labels if 1 < len(self.labels) <= 4 and sum(map(len, self.labels)) <= 24 else ()
        columns = ["loss", *names, "mean", "best"]
        for column in columns[1:]:
            table.add_column(f"Dice\n{column}", justify="right", no_wrap=True, min_width=6)
        for name, row in self.rows.items():
            table.add_row(name, row.state, *(row.cells.get(column, "") for column in columns))
        return table


class _Silence(Line):
    """Says nothing: of several processes one speaks."""

    def update(self, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass


@contextmanager
def board(
    names: Sequence[str], labels: Sequence[str], console: Console | None = None, *, silent: bool = False
) -> Iterator[Board]:
    """A `Board`, live where stderr is a terminal; `console` stands for it."""
    if silent:
        yield Board(names, labels, _Silence())
        return
    console = console or Console(stderr=True)
    with progress_line() as line:
        shown = Board(names, labels, line)
        if not console.is_terminal:
            yield shown
            return
        with Live(shown.table(), console=console, refresh_per_second=2) as shown.live:
            yield shown


def held_out_table(scores: Mapping[int, FoldScores]) -> Table:
    """Dice of the held-out cases by label and fold."""
    from volseg.training.heldout import dice_rows, number

    shown = Table(title="Dice on held-out cases", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("Label", overflow="fold")
    for head in (*(f"Fold {fold}" for fold in scores), "Mean", "SD", "95 % CI", "n"):
        shown.add_column(head, justify="right", no_wrap=True)
    for name, folds, found in dice_rows(scores):
        interval = "-" if found.ci_low is None else f"{found.ci_low:.4f}-{found.ci_high:.4f}"
        shown.add_row(name, *map(number, (*folds, found.mean, found.std)), interval, str(found.n))
    return shown
