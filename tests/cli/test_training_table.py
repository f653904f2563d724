"""The live table of a training."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from volseg.cli.training_table import board
from volseg.training.checkpoint import Progress


def row(loss: float, dice: float | None = None) -> dict[str, float | None]:
    return {"loss": loss, "dice": dice, "dice left": dice, "dice right": None}


def test_a_terminal_shows_every_fold() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, height=30, color_system=None)
    with board(["fold 0", "fold 1"], ["left", "right"], console) as shown:
        shown.state("fold 0", "reading 3 cases")
        report = shown.reporter("fold 0")
        report(Progress(step=1, total=4), row(0.5))
        report(Progress(step=2, total=4, best=0.75), row(0.25, 0.75))
        shown.say("something [unusual]")
        lines = [line.split() for line in _plain(shown.table())]
        narrow = _plain(shown.table(), width=50)
    assert lines[0] == ["Dice"] * 4
    assert lines[1] == ["State", "loss", "left", "right", "mean", "best"]
    assert lines[2][:4] == ["fold", "0", "step", "2/4"]
    assert lines[2][-4:] == ["0.2500", "0.7500", "0.7500", "0.7500"]
    assert lines[3] == ["fold", "1", "waits"]
    # In a narrow terminal names and numbers are whole, and each fold has one line.
    assert len(narrow) == len(lines)
    assert narrow[2].startswith("fold 0  step")
    assert "0.7500" in narrow[2]
    assert "something [unusual]" in text.getvalue()
    assert "reading 3 cases" in text.getvalue() or "step 2/4" in text.getvalue()


def _plain(table: object, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def test_elsewhere_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with board(["fold all"], ["left", "right"]) as shown:
        report = shown.reporter("fold all")
        report(Progress(step=1, total=4), row(0.5))
        report(Progress(step=2, total=4), row(0.25, 0.75))
        shown.say("something")
    err = capsys.readouterr().err
    assert "\033" not in err
    assert "fold all  step 1/4  loss 0.5000\n" in err
    assert "fold all  step 2/4  Dice 0.7500 on held-out cases\n" in err
    assert err.endswith("something\n")
