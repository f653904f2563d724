"""The command line, called in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from volseg.cli import main as cli


@dataclass(frozen=True)
class Done:
    """What a command left: exit code and the text of both streams."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """Runs ``volseg`` with the given arguments."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Done:
        self.monkeypatch.setattr(sys, "argv", ["volseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(int(ended.value.code or 0), out, err)
