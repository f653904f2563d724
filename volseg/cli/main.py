"""The command ``volseg``: its commands in one list, and what an error looks like on the way out.

Exit codes: 0 all done, 1 something was refused or failed, 2 the call is wrong, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated

import typer

from volseg import __version__
from volseg.cli.convert import convert
from volseg.cli.evaluate import evaluate
from volseg.cli.inspect import inspect
from volseg.cli.model import app as model_app
from volseg.cli.plan import plan
from volseg.cli.predict import predict
from volseg.cli.send import send
from volseg.cli.train import train
from volseg.errors import UsageError, VolsegError

# Plain text, and Python's own tracebacks: the same on a terminal, in a log and in continuous integration.
app = typer.Typer(
    name="volseg",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(inspect)
app.command()(plan)
app.command()(train)
app.command()(predict)
app.command()(evaluate)
app.command()(convert)
app.command()(send)
app.add_typer(model_app, name="model")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"volseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Segment 3D medical scans: DICOM or NIfTI in, masks on the scan's own grid out."""


def main() -> None:
    """Run the command line of this process, and exit.

    An error that volseg raises on purpose is one line on stderr; any other is a bug and keeps its traceback.
    """
    # Importing torch makes a million objects of which none is garbage: looking for some, again and again while they are
    # made and once more at the end, takes a second.
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.freeze)
    try:
        app(prog_name="volseg")
    except VolsegError as error:
        print(f"volseg: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        # A full disk, a folder that may not be written: the system's word on it is clear enough.
        where = f"{error.filename}: " if error.filename else ""
        print(f"volseg: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
