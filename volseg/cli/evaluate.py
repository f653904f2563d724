"""``volseg evaluate``: masks against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.progress import progress_line


def evaluate(
    predicted: Annotated[
        Path,
        typer.Argument(metavar="PREDICTED", help="Masks: predict's output, a folder of <case>.nii.gz, or a file."),
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="References: a folder of <case>.nii.gz, or a file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write metrics.csv, summary.csv and metrics.json here."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="MM", help="Distance that NSD, the surface Dice, forgives.")
    ] = 1.0,
    ignored: Annotated[
        int | None,
        typer.Option("--ignore", metavar="VALUE", min=1, help="Leave out voxels that have it in the reference."),
    ] = None,
) -> None:
    """Score masks per case and label: Dice, IoU, accuracy, HD95, NSD and volumes.

    Exit code 1 where a case couldn't be paired or compared.
    """
    from rich.console import Console

    from volseg.cli.evaluation_table import render
    from volseg.errors import UsageError
    from volseg.evaluation import evaluate_folders
    from volseg.evaluation.tables import as_json, write_tables

    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"{output}: -o needs a folder, and this is a file")
    with progress_line() as line:
        evaluation = evaluate_folders(
            predicted,
            reference,
            tolerance,
            ignored=ignored,
            on_case=lambda done, pairs, case: line.update(f"case {done} of {pairs}: {case}"),
        )
    if output is not None:
        write_tables(evaluation, output)
    if json_output:
        print(as_json(evaluation), end="")
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        for part in render(evaluation):
            console.print(part)
    if evaluation.not_evaluated:
        raise typer.Exit(1)
