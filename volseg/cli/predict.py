"""``volseg predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from volseg.cli.progress import Line, progress_line
from volseg.export.outputs import formats as known_formats

if TYPE_CHECKING:
    from volseg.results.case import CaseResult

#: Labels whose volumes are shown in a line; of more, only those that occur, and the others are counted.
MOST_LABELS = 6


def _listed(given: list[str] | None) -> tuple[str, ...]:
    """Values of an option that may be repeated or separated by commas."""
    return tuple(part.strip() for text in given or () for part in text.split(",") if part.strip())


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
    """What is said of a batch on the way.

    Parameters
    ----------
    line
        Where it is said.
    root
        Folder that a result's path is relative to.
    """

    def __init__(self, line: Line, root: Path) -> None:
        self.line, self.root = line, root
        self.case = self.stage = ""

    def before(self, number: int, count: int, name: str) -> None:
        """A case begins."""
        self.case, self.stage = f"[{number}/{count}] {name}", ""
        self.line.update(self.case)

    def planned(self, plan: object) -> None:
        """What it will take is known."""
        self.line.say(f"{self.case}: memory {plan}")

    def staged(self, stage: str) -> None:
        """One of a cascade's stages begins."""
        self.stage = f"{stage}, "

    def progress(self, done: int, windows: int) -> None:
        """A window is done."""
        self.line.update(f"{self.case}: {self.stage}{done} of {windows} windows")

    def stalled(self, case: str, stage: str, seconds: float) -> None:
        """A stage makes no progress."""
        self.line.say(f"{case}: {stage}: no progress for {seconds:.0f} s; still waiting")

    def after(self, result: CaseResult) -> None:
        """A case is over."""
        self.line.say(f"{result.status:8} {result.case}  {_outcome(result, self.root)}")


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
    from volseg.batch.case import Job
    from volseg.batch.runner import run_batch
    from volseg.inference.options import Options
    from volseg.inference.predictor import load_model
    from volseg.machine import parse_size
    from volseg.results.case import exit_code

    root = path if path.is_dir() else path.parent
    with progress_line() as line:
        shown = Shown(line, root)
        options = Options(
            mirroring=tta,
            engine=engine,
            precision=precision,
            folds=_listed(folds),
            device=device,
            labels=_listed(labels),
            tile_step=step,
            coarse_to_fine=coarse_to_fine,
            probabilities=probabilities,
            entropy=entropy,
            memory=None if memory is None else parse_size(memory),
            planned=None if memory is None else shown.planned,
            progress=shown.progress,
            staged=shown.staged,
        )
        job = Job(
            model=load_model(model),
            options=options,
            formats=_listed(formats) or None,
            repair_uids=repair_uids,
            resample_tilt=resample_tilt,
            preview=preview,
        )
        results = run_batch(
            path, output, job, _listed(series), before=shown.before, after=shown.after, stalled=shown.stalled
        )
        used = {f"{result.engine} {result.precision}" for result in results if result.engine}
        if used:
            line.say(f"{'engine':8} {', '.join(sorted(used))}")
    counts = {status: sum(result.status == status for result in results) for status in ("done", "empty", "skipped")}
    wrong = len(results) - sum(counts.values())
    said = [f"{count} {status}" for status, count in counts.items() if count]
    print(f"{output}: {', '.join(said + ([f'{wrong} refused or failed'] if wrong else []))}")
    raise typer.Exit(exit_code(result.status for result in results))
