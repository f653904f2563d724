"""A path to results: which candidates fit the model, and all of them run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from volseg.batch.case import Case, Job
from volseg.batch.pipeline import run_cases
from volseg.batch.watchdog import Stalled, Watchdog
from volseg.errors import InputError, UsageError
from volseg.inference.fit import Mismatch
from volseg.loaders import Candidate, find
from volseg.loaders.channels import compose
from volseg.resample import straight_grid
from volseg.results.case import CaseResult

#: Called before each case with its number (from 1), the number of cases, and its name; and after it with its result.
Before = Callable[[int, int, str], None]
After = Callable[[CaseResult], None]


def choose_series(candidates: Sequence[Candidate], series: Sequence[str], channels: int = 1) -> list[Candidate]:
    """The candidates that ``--series`` names, by series UID, series number or case name.

    Parameters
    ----------
    candidates
        What was found.
    series
        The names.
    channels
        Of the model. Where there are several, and as many names of different series of one study, these are the
        channels of one case, in this order.

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
    if candidate.code == "tilted" and job.resample_tilt and grid is not None:
        grid = straight_grid(grid)
    elif not candidate.usable:
        grid = None
    wrong = job.model.modality_mismatch(candidate.modality)
    if wrong is None and candidate.kind == "dicom" and candidate.channels != len(job.model.recipe.channels):
        wrong = Mismatch("channels", f"{candidate.channels} channels; the model takes {len(job.model.recipe.channels)}")
    return wrong if wrong is not None or is_file or grid is None else job.model.mismatch(candidate.modality, grid)


def run_batch(
    path: Path,
    out: Path,
    job: Job,
    series: Sequence[str] = (),
    *,
    before: Before,
    after: After,
    stalled: Stalled = lambda *_: None,
) -> list[CaseResult]:
    """Segment everything below a path that fits the model.

    Parameters
    ----------
    path
        NIfTI file, DICOM series, study folder, or a folder of such.
    out
        Folder for the results, a folder a case.
    job
        What to do with each.
    series
        Only these, whether they fit or not.
    before, after
        For showing progress. `after` is called by another thread, and for one case perhaps after `before` for the next.
    stalled
        Told of stages that make no progress.

    Returns
    -------
    list of CaseResult
        What became of each.

    Raises
    ------
    UsageError
        The path doesn't exist, `out` lies inside it, it lies where a case's results would, `out` can't be made, or a
        series that isn't there.
    InputError
        Code ``no-image``: nothing below the path is an image.
    """
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise UsageError(f"{out}: lies inside the input {path}; choose a folder elsewhere")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; give a folder")
    job.model.engines(job.options)
    job.model.wanted(job.options)
    channels = job.model.recipe.channels
    study = find(path, channels=channels)
    if not study.candidates:
        shown = "; ".join(f"{entry.path.name}: {entry.reason}" for entry in study.ignored[:3])
        raise InputError(f"holds no image{f' ({shown})' if shown else ''}", code="no-image", path=path)
    candidates = choose_series(study.candidates, series, len(channels)) if series else list(study.candidates)
    for candidate in candidates:
        # What an earlier run left in there is removed, and the scan may bear the name of a result.
        if path.resolve().is_relative_to((out / candidate.name).resolve()):
            raise UsageError(f"{out / candidate.name}: holds the input {path}; choose another folder for the results")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: this folder can't be made: {error.strerror}") from error
    with Watchdog(stalled) as watchdog:
        cases = [
            Case(
                candidate,
                study.root,
                out,
                job,
                watchdog,
                None if series else mismatch(candidate, job, is_file=path.is_file()),
            )
            for candidate in candidates
        ]
        return run_cases(cases, before=lambda n: before(n + 1, len(cases), candidates[n].name), after=after)
