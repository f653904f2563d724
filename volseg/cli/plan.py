"""``volseg plan``: a labelled dataset to a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.progress import bar, progress_line
from volseg.errors import UsageError


def plan(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET", help="Dataset: a folder as MSD, nnU-Net, TotalSegmentator or BraTS, or a CSV."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RECIPE", help="Recipe to write, a YAML file.")],
    memory: Annotated[str, typer.Option("--memory", help="What training may hold, such as 8GB.")] = "8GB",
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Wall minutes of training a model.")] = 30.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print the dataset's fingerprint as JSON.")] = False,
) -> None:
    """Measure a labelled dataset and write a recipe for it, with the reason for each choice.

    Exit code 1 where a case can't be used: all of them are listed, and no recipe is written.
    """
    import json

    from volseg.files import write_atomically
    from volseg.machine import parse_size
    from volseg.planning.fingerprint import take_fingerprint
    from volseg.planning.plan import make_plan
    from volseg.planning.probe import probe, this_machine

    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"{output}: -o needs a file in a folder that exists")
    room = parse_size(memory)
    with progress_line() as line:
        fingerprint = take_fingerprint(
            dataset, lambda number, total, name: line.update(f"{bar(number - 1, total)}  {name}")
        )
        if json_output:
            print(json.dumps(fingerprint.as_dict(), indent=1))
        for problem in fingerprint.problems:
            line.say(f"{problem.case}: {problem.reason}")
        machine = this_machine()
        planned = make_plan(fingerprint, machine, minutes=minutes, memory=room)
        for note in planned.notes:
            line.say(f"note: {note}")
        line.update("timing a few steps of the planned network")
        measured = planned.measured(probe(planned.recipe, machine))
    write_atomically(output, planned.yaml(measured).encode())
    if not json_output:
        print(f"{output}: planned for {len(fingerprint.cases)} cases. {measured}")
        print(f"Train it: volseg train {output} --data {dataset} -o RUN --minutes {minutes:g}")
