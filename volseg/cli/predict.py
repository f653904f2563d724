"""``volseg predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from volseg.cli.progress import Line, progress_line
from volseg.events import CaseBegun, CaseDone, Event, Planned, Progress, Stalled
from volseg.export.outputs import named as known_formats
from volseg.results import RESULT

if TYPE_CHECKING:
    from volseg.results.case import CaseResult

#: The stage of a model that has one alone, which isn't named.
NETWORK = "network"
#: Labels whose volumes are shown in a line; of more, only those that occur, and the others are counted.
MOST_LABELS = 6
#: Flags that `result.json` alone has: what was seen to, and what most scans have.
_QUIET = {"note", "tilt", "engine", "touches-border"}


def _listed(given: list[str] | None) -> tuple[str, ...]:
    """Values of an option that may be repeated or separated by commas."""
    return tuple(part.strip() for text in given or () for part in text.split(",") if part.strip())


def _warnings(result: CaseResult) -> list[str]:
    """Flags of a mask that people should see at once: what is doubtful, and what was to be written and isn't."""
    if result.status not in ("done", "empty"):
        return []
    return [flag for flag in result.flags if flag.partition(":")[0] not in _QUIET]


def _outcome(result: CaseResult, root: Path) -> str:
    """What became of a case, in one line; where it is a problem, with the path below `root`."""
    if result.status in ("done", "empty"):
        labels = result.labels
        shown = labels if len(labels) <= MOST_LABELS else [label for label in labels if label.voxels]
        volumes = ", ".join(f"{label.name} {label.volume_ml:.2f} ml" for label in shown[:MOST_LABELS])
        more = f" and {len(shown) - MOST_LABELS} more labels" if len(shown) > MOST_LABELS else ""
        return volumes + more + ("  (unchanged since an earlier run)" if result.reused else "")
    where = "" if result.status == "skipped" else f"{root / result.source.path}: "
    return f"{result.code}: {where}{result.reason}"


class Shown:
    """What is said of a batch on the way: a listener.

    Parameters
    ----------
    line
        The line that progress is shown on.
    root
        Folder that a result's path is relative to.
    plans
        Whether the memory of each case is said.
    """

    def __init__(self, line: Line, root: Path, *, plans: bool) -> None:
        self.line, self.root, self.plans = line, root, plans
        self.case = ""

    def __call__(self, event: Event) -> None:
        """Say what happened."""
        match event:
            case CaseBegun():
                self.case = f"[{event.number}/{event.count}] {event.case}"
                self.line.update(self.case)
            case Planned() if self.plans:
                self.line.say(f"{self.case}: memory {event.text}")
            case Progress():
                stage = "" if event.stage == NETWORK else f"{event.stage}, "
                self.line.update(f"{self.case}: {stage}{event.done} of {event.count} windows")
            case Stalled():
                self.line.say(f"{event.case}: {event.stage}: no progress for {event.seconds:.0f} s; still waiting")
            case CaseDone():
                result: CaseResult = event.result
                self.line.say(f"{result.status:8} {result.case}  {_outcome(result, self.root)}")
                for warning in _warnings(result):
                    self.line.say(f"{'':8} ! {warning}")


def predict(
    path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="NIfTI file, DICOM series, study folder, or a folder of these.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results, a folder a case.")],
    model: Annotated[str, typer.Option("--model", help="Bundled name or model folder.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help=f"{', '.join(known_formats())}; separated by commas. Default: nifti, and seg for DICOM."
        ),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            help="Only this series (UID, number or case name), even if it doesn't fit. Repeat. For a model of several"
            " channels: one series of a study for each, in the model's order, which become one case.",
        ),
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option(help="What runs the network. auto: the fastest that is there, openvino on a CPU."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Of the network. auto: fp32; bf16 is coarser.")
    ] = "auto",
    tta: Annotated[
        bool | None, typer.Option("--tta/--no-tta", help="Average mirrored passes. Default: as the model says.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", help="Only these labels of the model (names or values), separated by commas."),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            "--step",
            min=0.05,
            max=1.0,
            help="Largest step from window to window, as a share of the window. Default: as the model says. Larger ones"
            " are faster, and masks differ a little.",
        ),
    ] = None,
    coarse_to_fine: Annotated[
        bool,
        typer.Option(
            "--coarse-to-fine",
            help="Find where the labels are in a few windows, and look there alone: faster where they are a small part"
            " of the scan.",
        ),
    ] = False,
    folds: Annotated[list[str] | None, typer.Option("--folds", help="Only these folds of the model.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="Hold no more than this, such as 4GB. What each scan takes is said first."
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write a map of each label's probability.")
    ] = False,
    entropy: Annotated[
        bool, typer.Option("--entropy", help="Also write a map of the entropy of the labels' probabilities, in bits.")
    ] = False,
    repair_uids: Annotated[
        bool, typer.Option("--repair-uids", help="Copy a series with blank UIDs under new ones, for the SEG.")
    ] = False,
    resample_tilt: Annotated[
        bool,
        typer.Option(
            "--resample-tilt", help="Put a series with a gantry tilt onto straight slices; its mask is on its own."
        ),
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="Draw a picture of each mask over its scan.")
    ] = True,
) -> None:
    """Segment every series that fits the model; masks lie on the scan's own grid."""
    from volseg.batch.request import Request
    from volseg.batch.runner import run_batch
    from volseg.machine import parse_size
    from volseg.results.case import exit_code

    request = Request.of(
        input=path,
        output=output,
        model=model,
        series=_listed(series),
        formats=_listed(formats) or None,
        tta=tta,
        tile_step=step,
        coarse_to_fine=coarse_to_fine,
        folds=_listed(folds),
        engine=engine,
        precision=precision,
        device=device,
        labels=_listed(labels) or None,
        probabilities=probabilities,
        entropy=entropy,
        memory=None if memory is None else parse_size(memory),
        repair_uids=repair_uids,
        resample_tilt=resample_tilt,
        preview=preview,
    )
    with progress_line() as line:
        shown = Shown(line, path if path.is_dir() else path.parent, plans=memory is not None)
        results = run_batch(request, listener=shown)
        used = {f"{result.engine} {result.precision}" for result in results if result.engine}
        if used:
            line.say(f"{'engine':8} {', '.join(sorted(used))}")
    counts = {status: sum(result.status == status for result in results) for status in ("done", "empty", "skipped")}
    wrong = len(results) - sum(counts.values())
    said = [f"{count} {status}" for status, count in counts.items() if count]
    if flagged := sum(bool(_warnings(result)) for result in results):
        said.append(f"{flagged} with warnings (flags in {RESULT})")
    print(f"{output}: {', '.join(said + ([f'{wrong} refused or failed'] if wrong else []))}")
    raise typer.Exit(exit_code(result.status for result in results))
