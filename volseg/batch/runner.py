"""A path to results: which candidates fit the model, and all of them run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volseg.batch.case import Case, Job, Told
from volseg.batch.pipeline import run_cases
from volseg.batch.request import Request
from volseg.batch.watchdog import Watchdog
from volseg.errors import InputError, UsageError
from volseg.events import Cancel, Listener, nobody
from volseg.inference import Mismatch, Model, load_model
from volseg.loaders import Candidate, find
from volseg.loaders.channels import compose
from volseg.resample import straight_grid
from volseg.results.case import CaseResult


def choose_series(candidates: Sequence[Candidate], series: Sequence[str], channels: int = 1) -> list[Candidate]:
    """The candidates that ``--series`` names, by series UID, series number or case name.

    Parameters
    ----------
    candidates
        Candidates that were found.
    series
        Names of the series to take.
    channels
        Channels of the model. Where there are several, and `series` names as many different series of one study, these
        are the channels of one case, in this order.

    Raises
    ------
    UsageError
        A name that no candidate bears, or that several do.
    """
    if len(series) == channels > 1:
        parts = _of_one_study(candidates, series)
        if parts:
            return [compose(parts)]
    chosen: list[Candidate] = []
    for wanted in series:
        found = [candidate for candidate in candidates if _bears(candidate, wanted)]
        # One series may hold several volumes: its UID or number means all of them.
        if len({candidate.series_uid or candidate.name for candidate in found}) != 1:
            listed = ", ".join(candidate.name for candidate in (found or candidates)) or "no series at all"
            problem = "names several series" if found else "names no series of the input"
            more = f"; or name {channels} series of one study, one a channel" if channels > 1 else ""
            raise UsageError(f"--series {wanted}: {problem}: {listed}{more}")
        chosen += [candidate for candidate in found if candidate not in chosen]
    return chosen


def _of_one_study(candidates: Sequence[Candidate], series: Sequence[str]) -> list[Candidate]:
    """The series of one study that the names mean, one each; none where they mean anything else."""
    singles = [part for candidate in candidates for part in candidate.parts or (candidate,) if part.kind == "dicom"]
    named = [[single for single in singles if _bears(single, wanted)] for wanted in series]
    if any(len(found) != 1 for found in named):
        return []
    parts = [found for (found,) in named]
    one_study = len({part.study_uid for part in parts}) == 1
    return parts if one_study and len({part.name for part in parts}) == len(parts) else []


def _bears(candidate: Candidate, wanted: str) -> bool:
    number = candidate.series_number
    return wanted in (candidate.series_uid, candidate.name) or (number is not None and wanted == str(number))


def mismatch(candidate: Candidate, job: Job, *, is_file: bool) -> Mismatch | None:
    """Say why a candidate that wasn't named should be left out.

    A file that was given by its path is meant: only its modality could still rule it out. A series that can't be used
    is not left out for its grid, so that the reason is told.
    """
    grid = candidate.geometry
    if candidate.code == "tilted" and job.settings.resample_tilt and grid is not None:
        grid = straight_grid(grid)
    elif not candidate.usable:
        grid = None
    wrong = job.model.modality_mismatch(candidate.modality)
    if wrong is None and candidate.kind == "dicom" and candidate.channels != len(job.model.recipe.channels):
        wrong = Mismatch("channels", f"{candidate.channels} channels; the model takes {len(job.model.recipe.channels)}")
    return wrong if wrong is not None or is_file or grid is None else job.model.mismatch(candidate.modality, grid)


def run_batch(
    request: Request, model: Model | None = None, *, listener: Listener = nobody, cancel: Cancel | None = None
) -> list[CaseResult]:
    """Segment everything below a path that fits the model.

    Parameters
    ----------
    request
        The request to fulfil.
    model
        The request's model where it is loaded already.
    listener
        A function that is called with each event, by several threads: with a case's end perhaps after the next one's
        beginning.
    cancel
        The token that ends the batch between two windows.

    Returns
    -------
    list of CaseResult
        What became of each case.

    Raises
    ------
    UsageError
        The input doesn't exist, the output lies inside it, it lies where a case's results would, the output can't be
        made, or a series, a fold, a label, an engine or a device that isn't there. Nothing was written.
    ModelError
        No such model, or one that can't be used.
    InputError
        Code ``no-image``: nothing below the path is an image.
    CancelledError
        `cancel` was told so. Cases that were done are there.
    """
    path, out = request.input, request.output
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise UsageError(f"{out}: lies inside the input {path}; choose a folder elsewhere")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; give a folder")
    job = Job.of(request, load_model(request.model) if model is None else model)
    candidates, root = _candidates(request, job)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: this folder can't be made: {error.strerror}") from error
    cancel = cancel or Cancel()
    with Watchdog(listener) as watchdog:
        told = Told(listener=listener, cancel=cancel, watchdog=watchdog)
        wrong = {
            candidate.name: None if request.series else mismatch(candidate, job, is_file=path.is_file())
            for candidate in candidates
        }
        cases = [Case(candidate, root, out, job, told, wrong[candidate.name]) for candidate in candidates]
        return run_cases(cases, listener, cancel)


def _candidates(request: Request, job: Job) -> tuple[list[Candidate], Path]:
    """What is to be segmented, and the folder that it was found in."""
    path, channels = request.input, job.model.recipe.channels
    listing = find(path, channels=channels)
    if not listing.candidates:
        shown = "; ".join(f"{entry.path.name}: {entry.reason}" for entry in listing.ignored[:3])
        raise InputError(f"holds no image{f' ({shown})' if shown else ''}", code="no-image", path=path)
    found = list(listing.candidates)
    candidates = choose_series(found, request.series, len(channels)) if request.series else found
    for candidate in candidates:
        # What an earlier run left in there is removed, and the scan may bear the name of a result.
        if path.resolve().is_relative_to((request.output / candidate.name).resolve()):
            raise UsageError(
                f"{request.output / candidate.name}: holds the input {path}; choose another folder for the results"
            )
    return candidates, listing.root


def segment(
    path: str | Path,
    out: str | Path,
    *,
    model: str | Path | Model,
    listener: Listener = nobody,
    cancel: Cancel | None = None,
    **options: Any,
) -> list[CaseResult]:
    """Segment a file, a series, a study or a folder of these: what ``volseg predict`` does in the shell.

    Parameters
    ----------
    path
        NIfTI file, DICOM series, study folder, or a folder of such.
    out
        Folder for the results, a folder for each case.
    model
        Bundled name, model folder, or a loaded model, which several calls may share one after the other.
    listener
        A function that is called with an event (`volseg.events`) whenever something happens, by several threads.
    cancel
        The token that ends the batch between two windows (`volseg.events.Cancel`).
    **options
        Fields of `volseg.batch.request.Request`, such as ``formats=("nifti", "seg")`` or ``tta=True``.

    Returns
    -------
    list of CaseResult
        What became of each case: ``result.json`` in its folder holds the same. One that was refused or failed is
        among them, and no error.

    Raises
    ------
    UsageError
        A call that is wrong, as `run_batch`; nothing was written.
    InputError
        Code ``no-image``: nothing below the path is an image.
    CancelledError
        `cancel` was told so. Cases that were done are there.
    """
    loaded = model if isinstance(model, Model) else None
    name = str(model.folder.path if isinstance(model, Model) else model)
    request = Request.of(input=path, output=out, model=name, **options)
    return run_batch(request, loaded, listener=listener, cancel=cancel)
