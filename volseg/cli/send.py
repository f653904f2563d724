"""``volseg send``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def send(
    path: Annotated[Path, typer.Argument(metavar="OUT|FILE", help="A DICOM file, or a folder of results.")],
    to: Annotated[
        str, typer.Option("--to", metavar="DESTINATION", help="AET@host:port, a DICOMweb URL, or a name in the file.")
    ],
    destinations: Annotated[
        Path, typer.Option("--destinations", metavar="FILE", help="TOML that names destinations.")
    ] = Path("destinations.toml"),
) -> None:
    """Send the DICOM files of a folder to a PACS; a second call sends what is left."""
    from volseg.send.destination import destination
    from volseg.send.run import send

    counts = {"sent": 0, "already there": 0, "not accepted": 0}
    for outcome in send(path, destination(to, destinations), waiting=_say):
        if not outcome.accepted:
            counts["not accepted"] += 1
            print(f"{outcome.instance.path}: {outcome.said}", file=sys.stderr)
        else:
            counts["already there" if outcome.before else "sent"] += 1
    print(f"{to}: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}")
    raise typer.Exit(int(bool(counts["not accepted"])))


def _say(why: str, seconds: float) -> None:
    print(f"{why}; again in {seconds:g} s", file=sys.stderr)
