"""``volseg predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from volseg.cli.progress import progress_line


def _listed(given: list[str] | None) -> tuple[str, ...]:
    """Values of an option that may be repeated or separated by commas."""
    return tuple(part.strip() for text in given or () for part in text.split(",") if part.strip())


def _outcome(result: dict[str, Any], root: Path) -> str:
    """What became of a case, in one line; where it is a problem, with the path below `root`."""
    if result["status"] in ("done", "empty"):
        volumes = ", ".join(f"{label['name']} {label['volume_ml']:.2f} ml" for label in result["labels"])
        return volumes + ("  (unchanged since an earlier run)" if result.get("reused") else "")
    where = "" if result["status"] == "skipped" else f"{root / result['source']['path']}: "
    return f"{result['code']}: {where}{result['reason']}"


def predict(
    path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="NIfTI file, DICOM series, study folder, or a folder of these.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results, a folder a case.")],
    model: Annotated[str, typer.Option("--model", help="Bundled name or model folder.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="nifti, seg; separated by commas. Default: nifti, and seg for DICOM."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            help="Only this series (UID, number or case name), even if it doesn't fit. Repeat. For a model of several"
            " channels: one series of a study for each, in the model's order, which become one case.",
        ),
    ] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="Of the network.")] = "auto",
    tta: Annotated[
        bool | None, typer.Option("--tta/--no-tta", help="Average mirrored passes. Default: as the model says.")
    ] = None,
    folds: Annotated[list[str] | None, typer.Option("--folds", help="Only these folds of the model.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    repair_uids: Annotated[
        bool, typer.Option("--repair-uids", help="Copy a series with blank UIDs under new ones, for the SEG.")
    ] = False,
    resample_tilt: Annotated[
        bool,
        typer.Option(
            "--resample-tilt", help="Put a series with a gantry tilt onto straight slices; its mask is on its own."
        ),
    ] = False,
) -> None:
    """Segment every series that fits the model; masks lie on the scan's own grid."""
    from volseg.batch.case import Job
    from volseg.batch.runner import exit_code, run_batch
    from volseg.inference.predictor import Options, load_model

    options = Options(mirroring=tta, precision=precision, folds=_listed(folds), device=device)
    job = Job(
        model=load_model(model),
        options=options,
        formats=_listed(formats) or None,
        repair_uids=repair_uids,
        resample_tilt=resample_tilt,
    )
    root = path if path.is_dir() else path.parent
    with progress_line() as line:
        results = run_batch(
            path,
            output,
            job,
            _listed(series),
            before=lambda number, count, name: line.update(f"[{number}/{count}] {name}"),
            after=lambda result: line.say(f"{result['status']:8} {result['case']}  {_outcome(result, root)}"),
        )
    counts = {status: sum(result["status"] == status for result in results) for status in ("done", "empty", "skipped")}
    wrong = len(results) - sum(counts.values())
    said = [f"{count} {status}" for status, count in counts.items() if count]
    print(f"{output}: {', '.join(said + ([f'{wrong} refused or failed'] if wrong else []))}")
    raise typer.Exit(exit_code(results))
