"""The command line's frame: its commands, its exit codes, and errors of one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import volseg
from volseg.cli import main as cli
from volseg.errors import ExportError, GeometryError, InputError, ModelError, RecipeError, TrainingError, UsageError

Call = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["volseg", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


def register(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Add a command `fail` that raises `error`."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))
    cli.app.command("fail")(fail)


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"volseg {volseg.__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands(call: Call, flag: str) -> None:
    code, out, err = call(flag)
    commands = [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()]
    assert (code, err) == (0, "")
    assert commands == ["inspect", "plan", "train", "predict", "evaluate", "convert", "send", "model"]
    assert "Segment 3D medical scans: DICOM or NIfTI in" in out


@pytest.mark.parametrize("command", ["inspect", "plan", "train", "predict", "evaluate", "convert", "send", "model"])
def test_every_command_has_help(call: Call, command: str) -> None:
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: volseg {command} ")


def test_model_has_its_commands(call: Call) -> None:
    _, out, _ = call("model", "--help")
    commands = [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()]
    assert sorted(commands) == ["import-nnunet", "labels", "list", "pack", "show"]


def test_no_arguments_shows_help_and_is_a_wrong_call(call: Call) -> None:
    code, out, err = call()
    assert code == 2
    assert "Commands:" in out + err


@pytest.mark.parametrize("arguments", [["segment"], ["predict"], ["predict", "--no-such-flag"], ["--no-such-flag"]])
def test_a_wrong_call_exits_2(call: Call, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: volseg" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("--tta: this model has no mirroring axes"), 2),
        (RecipeError("recipe.yaml: windwo: no such key"), 2),
        (ModelError("model: weights changed"), 2),
        (InputError("no image", code="no-image", path=Path("scan.nii")), 1),
        (GeometryError("slice 3 is absent", code="missing-slice"), 1),
        (ExportError("blank UIDs", code="no-identity"), 1),
        (TrainingError("the loss is NaN"), 1),
    ],
)
def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, call: Call, error: Exception, code: int) -> None:
    register(monkeypatch, error)
    assert call("fail") == (code, "", f"volseg: {error}\n")


def test_the_systems_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    register(monkeypatch, OSError(28, "No space left on device", "out/result.json"))
    assert call("fail") == (1, "", "volseg: out/result.json: No space left on device\n")


def test_an_error_of_several_lines_is_joined(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    register(monkeypatch, UsageError("first\nsecond"))
    assert call("fail") == (2, "", "volseg: first second\n")


def test_an_interrupt_exits_130_in_silence(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    register(monkeypatch, KeyboardInterrupt())
    assert call("fail") == (130, "", "")


def test_a_command_chooses_its_exit_code(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    register(monkeypatch, typer.Exit(1))
    assert call("fail") == (1, "", "")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ZeroDivisionError("a bug"))
    monkeypatch.setattr(sys, "argv", ["volseg", "fail"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main()


def test_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "volseg", "--version"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"volseg {volseg.__version__}\n", "")


def test_as_the_installed_command() -> None:
    command = Path(sys.executable).with_name("volseg")
    run = subprocess.run([command, "segment"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert "No such command 'segment'" in run.stderr
    assert "Traceback" not in run.stderr
