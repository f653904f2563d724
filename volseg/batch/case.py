"""One case: load, predict, export, account for it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import volseg
from volseg.batch.ledger import PREVIEW, Status, discard, file_hashes, reusable, write_result
from volseg.errors import ExportError, RefusalError, UsageError
from volseg.export import FORMATS
from volseg.geometry import Geometry
from volseg.inference.predictor import Mismatch, Model, Options
from volseg.inference.restore import on_grid
from volseg.loaders import Candidate
from volseg.loaders.identity import repair_uids
from volseg.resample import tilt_degrees
from volseg.volume import LabelVolume, Volume

log = logging.getLogger(__name__)

#: Folder, inside a case's, of the copy that --repair-uids makes.
REPAIRED = "series"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do with every case.

    Attributes
    ----------
    model, options
        What segments, and how.
    formats
        Formats by their names in `volseg.export.FORMATS`, or None: NIfTI, and SEG where the source is DICOM.
    repair_uids
        Write a copy of a series whose UIDs are blank, and refer to that.
    resample_tilt
        Put a series with a gantry tilt onto straight slices for the network.
    """

    model: Model
    options: Options
    formats: tuple[str, ...] | None = None
    repair_uids: bool = False
    resample_tilt: bool = False

    def __post_init__(self) -> None:
        if unknown := [name for name in self.formats or () if name not in FORMATS]:
            raise UsageError(f"no format {', '.join(unknown)}; formats are {', '.join(FORMATS)}")

    def as_json(self) -> dict[str, Any]:
        """The part of ``result.json`` that says what was asked for."""
        model, options = self.model, self.options
        mirroring = model.recipe.mirroring.use if options.mirroring is None else options.mirroring
        return {
            "volseg": volseg.__version__,
            "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
            "options": {
                "formats": None if self.formats is None else list(self.formats),
                "tta": mirroring,
                "folds": list(model.folds(options)),
                "precision": options.precision,
                "device": options.device,
                "memory": options.memory,
                "repair_uids": self.repair_uids,
                "resample_tilt": self.resample_tilt,
            },
        }


@dataclass
class Account:
    """What became of a case, as it grows into ``result.json``."""

    candidate: Candidate
    root: Path
    job: Job
    flags: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    sha256: str | None = None
    windows: int = 0
    labels: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def result(self, status: Status, code: str | None = None, reason: str | None = None) -> dict[str, Any]:
        """Return the content of ``result.json``."""
        candidate, job = self.candidate, self.job
        return {
            "case": candidate.name,
            "status": status,
            "code": code,
            "reason": reason,
            "source": {
                "kind": candidate.kind,
                "path": candidate.as_json(self.root)["path"],
                "series_uid": candidate.series_uid,
                "sha256": self.sha256,
            },
            "geometry": _geometry(candidate.geometry),
            **job.as_json(),
            "engine": "torch",
            "precision": "fp32" if job.options.precision == "auto" else job.options.precision,
            "threads": torch.get_num_threads(),
            "windows": self.windows,
            "tile_step": job.model.recipe.tile_step,
            "seconds": self.seconds,
            "peak_memory_mb": peak_memory_mb(),
            "labels": self.labels,
            "flags": self.flags,
            "files": self.files,
        }

    def timed(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run `work` and note how long it took."""
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[stage] = round(time.perf_counter() - start, 4)


def _geometry(geometry: Geometry | None) -> dict[str, Any] | None:
    if geometry is None:
        return None
    return {
        "shape": list(geometry.shape),
        "spacing_mm": list(geometry.spacing_mm),
        "affine": geometry.affine.tolist(),
        "orientation": geometry.orientation,
    }


def peak_memory_mb() -> float | None:
    """Largest memory that this process has held so far, None where the system doesn't say."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def skip_case(candidate: Candidate, root: Path, out: Path, job: Job, mismatch: Mismatch) -> dict[str, Any]:
    """Account for a series that doesn't fit the model, and return its result."""
    folder = out / candidate.name
    discard(folder)
    result = Account(candidate, root, job).result("skipped", mismatch.code, mismatch.reason)
    write_result(folder, result)
    return result


def run_case(candidate: Candidate, root: Path, out: Path, job: Job) -> dict[str, Any]:
    """Do one case, or find it done, and return its result.

    Whatever goes wrong with it, other cases go on: a refusal of the input gives the status ``refused``, anything else
    ``failed``.

    Parameters
    ----------
    candidate
        What to segment.
    root
        The input that `candidate` was found in; paths in the result are relative to it.
    out
        Folder of all cases; this one's is ``out / candidate.name``.
    job
        What to do.
    """
    folder = out / candidate.name
    account = Account(candidate, root, job)
    try:
        volume: Volume = account.timed("load", lambda: candidate.load(resample_tilt=job.resample_tilt))
        account.sha256 = volume.source.sha256
        if earlier := reusable(folder, job.as_json(), volume.source.sha256):
            return {**earlier, "reused": True}
        discard(folder)
        result = _segment(account, volume, folder)
    except Exception as error:
        if account.sha256 is None:
            discard(folder)
        result = _stopped(account, error)
    write_result(folder, result)
    return result


def _stopped(account: Account, error: Exception) -> dict[str, Any]:
    """Result of a case that an error ended: one case's, out of memory for example, isn't the end of a night's batch."""
    if isinstance(error, RefusalError):
        return account.result("refused", error.code, error.reason)
    log.exception("case %s failed", account.candidate.name)
    return account.result("failed", "internal", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _segment(account: Account, volume: Volume, folder: Path) -> dict[str, Any]:
    job = account.job
    account.flags += [f"note: {note}" for note in volume.source.notes]
    if volume.source.stored is not None:
        account.flags.append(
            f"tilt: {tilt_degrees(volume.source.stored):.1f} degrees, resampled onto straight slices for the network;"
            " the mask is on the original slices"
        )
    mismatch = job.model.mismatch(account.candidate.modality, volume.geometry)
    if mismatch is not None:
        account.flags.append(f"outside-training: {mismatch.reason}")
    prediction = job.model.segment(volume, job.options)
    account.windows = prediction.windows
    account.seconds |= prediction.seconds
    counts = prediction.labels.voxel_counts()
    account.labels = [
        {
            "value": label.value,
            "name": label.name,
            "volume_ml": round(counts[label.value] * prediction.labels.geometry.voxel_volume_ml, 6),
            "voxels": counts[label.value],
        }
        for label in prediction.labels.labels
    ]
    folder.mkdir(parents=True, exist_ok=True)
    problem = account.timed("write", lambda: _write(account, volume, prediction.labels, folder))
    if problem is not None:
        return account.result("failed", problem.code, problem.reason)
    return account.result("done" if any(counts.values()) else "empty")


def _write(account: Account, volume: Volume, labels: LabelVolume, folder: Path) -> ExportError | None:
    """Write every format and the preview, and return what kept a format that was asked for from it.

    Each file is accounted for as soon as it is there, so that also a case that fails half-way names what it left.
    """
    from volseg.report.pictures import write_preview

    problem: ExportError | None = None
    job = account.job
    if job.repair_uids and volume.source.dicom is not None and not volume.source.dicom.identity:
        try:
            # Of several channels, the first is the one that the mask belongs to.
            copy = repair_uids((account.candidate.parts or (account.candidate,))[0], folder / REPAIRED)
        except RefusalError as error:
            account.flags.append(f"repair-uids: {error.reason}")
        else:
            account.files |= file_hashes(folder, [f"{REPAIRED}/{path.name}" for path in (folder / REPAIRED).glob("*")])
            labels = replace(labels, source=copy.load(resample_tilt=job.resample_tilt).source)
    by_default = ("nifti", "seg") if volume.source.dicom is not None else ("nifti",)
    for name in job.formats or by_default:
        file, write = FORMATS[name]
        try:
            notes = write(labels, folder / file)
        except ExportError as error:
            account.flags.append(f"{name}: {error.code}: {error.reason}")
            if job.formats is not None:
                problem = problem or error
            continue
        account.flags += [f"{name}: {note}" for note in notes]
        account.files |= file_hashes(folder, [file])
    # Of a tilted series, what the network saw: a picture of leaning slices would be skewed.
    write_preview(volume, on_grid(labels, volume.geometry), folder / PREVIEW)
    account.files |= file_hashes(folder, [PREVIEW])
    return problem
