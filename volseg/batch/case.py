"""One case: load, segment, write, account for it, in stages that those of other cases may overlap."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

import volseg
from volseg.batch.ledger import discard, file_hashes, reusable
from volseg.batch.request import Request
from volseg.batch.watchdog import Watchdog
from volseg.errors import CancelledError, ExportError, RefusalError
from volseg.events import Cancel, Event, Listener, Note
from volseg.export.outputs import FinishedCase, chosen
from volseg.inference import (
    Mismatch,
    Model,
    Plan,
    Prediction,
    Ready,
    Segmenter,
    Streamed,
    border_sides,
    content_flags,
    quality_flags,
)
from volseg.inference.engines import Engine
from volseg.loaders import Candidate
from volseg.machine import peak_memory_mb
from volseg.resample import tilt_degrees
from volseg.results import case as results
from volseg.results.case import CaseResult, GeometryResult, LabelResult, ModelIdentity, SourceResult, Status
from volseg.results.settings import Settings
from volseg.volume import Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do with every case.

    Attributes
    ----------
    segmenter
        The model bound to its options.
    settings
        The options that were asked for, completed by what the model says where the choice was left to it.
    """

    segmenter: Segmenter
    settings: Settings

    @classmethod
    def of(cls, request: Request, model: Model) -> Self:
        """The job that a request gives a model.

        Raises
        ------
        ModelError
            Weights that are absent, were changed, or aren't those of the model's network.
        UsageError
            A fold, a label, a device or an engine that isn't there.
        """
        segmenter = Segmenter(model, request.options())
        labels = tuple(label.name for label in segmenter.wanted)
        resolved = {
            "tta": segmenter.mirroring,
            "folds": segmenter.folds,
            "labels": labels if request.labels else None,
        }
        settings = Settings(**{name: getattr(request, name) for name in Settings.model_fields} | resolved)
        return cls(segmenter=segmenter, settings=settings)

    @property
    def model(self) -> Model:
        """The model."""
        return self.segmenter.model

    @property
    def identity(self) -> ModelIdentity:
        """The model, for ``result.json``."""
        return ModelIdentity(name=self.model.name, version=self.model.version, sha256=self.model.sha256)


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
    #: None of a case that the network didn't see.
    engine: Engine | None = None
    labels: tuple[LabelResult, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    #: Of the thread that makes this, in which the network runs.
    threads: int = field(default_factory=torch.get_num_threads)

    def result(self, status: Status, code: str | None = None, reason: str | None = None) -> CaseResult:
        """Return the content of ``result.json``."""
        candidate, job = self.candidate, self.job
        return CaseResult(
            case=candidate.name,
            status=status,
            code=code,
            reason=reason,
            source=SourceResult(
                kind=candidate.kind,
                path=candidate.as_json(self.root)["path"],
                series_uid=candidate.series_uid,
                sha256=self.sha256,
            ),
            geometry=None if candidate.geometry is None else GeometryResult.of(candidate.geometry),
            volseg=volseg.__version__,
            model=job.identity,
            options=job.settings,
            engine=None if self.engine is None else self.engine.name,
            precision=None if self.engine is None else self.engine.precision,
            threads=self.threads,
            windows=self.windows,
            tile_step=job.segmenter.recipe.tile_step,
            seconds=dict(self.seconds),
            peak_memory_mb=peak_memory_mb(),
            labels=self.labels,
            flags=tuple(self.flags),
            files=dict(self.files),
        )


@dataclass(frozen=True, kw_only=True)
class Told:
    """Who is told of a batch, and who ends it.

    Attributes
    ----------
    listener
        The listener that hears of events.
    cancel
        The token that ends the batch between two windows.
    watchdog
        The watchdog that hears of stages.
    """

    listener: Listener
    cancel: Cancel
    watchdog: Watchdog
    _failures: list[Exception] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        """Tell the listener of an event; an error that it raises isn't one of the case."""
        try:
            self.listener(event)
        except Exception as error:
            self._failures.append(error)
            raise

    def ends_the_batch(self, error: Exception) -> bool:
        """Whether an error ends more than the case that it came up in."""
        return isinstance(error, CancelledError) or any(error is failure for failure in self._failures)


class Case:
    """One case on its way: `prepare`, `run` and `write`, in this order, each in any thread.

    Whatever goes wrong with it, other cases go on: a refusal of the input gives the status ``refused``, anything else
    ``failed``. Nothing is written or removed before `run`.

    Parameters
    ----------
    candidate
        The scan to segment.
    root
        The input that `candidate` was found in; paths in the result are relative to it.
    out
        Folder of all cases; this one's is ``out / candidate.name``.
    job
        The model and the settings.
    told
        The listener, token and watchdog that the stages are reported to.
    wrong
        The reason why the case is to be skipped; None: it isn't.
    """

    def __init__(
        self, candidate: Candidate, root: Path, out: Path, job: Job, told: Told, wrong: Mismatch | None = None
    ) -> None:
        self.candidate, self.job, self.wrong = candidate, job, wrong
        self.name = candidate.name
        self._folder, self._told = out / candidate.name, told
        self._account = Account(candidate, root, job)
        self._result: CaseResult | None = None
        self._ready: Ready | None = None
        self._segmented: tuple[Volume, Streamed] | None = None

    @property
    def plan(self) -> Plan | None:
        """What memory the network will take of a case that is prepared for it; else None."""
        return None if self._ready is None else self._ready.plan

    def prepare(self, stop: threading.Event) -> None:
        """Load it, find out whether it is done already, and preprocess it, unless `stop` is set by then."""
        account, job = self._account, self.job
        with self._accounted():
            if self.wrong is not None:
                self._result = account.result("skipped", self.wrong.code, self.wrong.reason)
                return
            volume = self._timed("load", lambda: self.candidate.load(resample_tilt=job.settings.resample_tilt))
            account.sha256 = volume.source.sha256
            if earlier := reusable(self._folder, account.result("done")):
                self._result = earlier.model_copy(update={"reused": True})
            elif not stop.is_set():
                self._flag(*_flags(self.candidate, volume, job.model))
                with self._told.watchdog.stage(self.name, "preprocess"):
                    self._ready = job.segmenter.prepare(volume, self._told.hear)

    def run(self) -> None:
        """Take away what an earlier run left, and segment it where it is prepared."""
        if self._result is not None and self._result.reused:
            return
        with self._accounted():
            discard(self._folder)
            if self._ready is not None:
                ready, self._ready = self._ready, None
                with self._told.watchdog.stage(self.name, "network"):
                    streamed = self.job.segmenter.run(ready, self._heard, self._told.cancel)
                self._account.windows = streamed.windows
                engine = self._account.engine = self.job.segmenter.engines[0]
                if engine.note is not None:
                    self._flag(f"engine: {engine.note}")
                self._account.seconds |= ready.seconds
                self._segmented = ready.volume, streamed

    def write(self) -> CaseResult:
        """Post-process and write what was segmented, then ``result.json``, and return the result."""
        if self._segmented is not None:
            (volume, streamed), self._segmented = self._segmented, None
            with self._accounted():
                self._result = self._finished(volume, streamed)
        assert self._result is not None  # or it was stopped
        if not self._result.reused:
            results.write(self._folder, self._result)
        return self._result

    def _finished(self, volume: Volume, streamed: Streamed) -> CaseResult:
        account, folder = self._account, self._folder
        with self._told.watchdog.stage(self.name, "postprocess"):
            prediction = self.job.segmenter.finish(streamed)
        account.seconds |= prediction.seconds
        account.labels = _found(prediction)
        self._flag(*quality_flags(account.labels, self.job.model.trained_on.volumes_ml))
        finished = FinishedCase(
            candidate=self.candidate,
            scan=volume,
            mask=prediction.mask,
            labels=account.labels,
            maps=prediction.maps,
            model=self.job.identity,
        )
        folder.mkdir(parents=True, exist_ok=True)
        problem = self._timed("write", lambda: _write(account, finished, folder))
        if problem is not None:
            return account.result("failed", problem.code, problem.reason)
        return account.result("done" if any(label.voxels for label in account.labels) else "empty")

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run `work` and note how long it took."""
        start = time.perf_counter()
        try:
            with self._told.watchdog.stage(self.name, stage):
                return work()
        finally:
            self._account.seconds[stage] = round(time.perf_counter() - start, 4)

    def _flag(self, *flags: str) -> None:
        """Keep flags for the result, and tell of them."""
        self._account.flags += flags
        for flag in flags:
            self._told.hear(Note(case=self.name, text=flag))

    def _heard(self, event: Event) -> None:
        """Tell of what the segmenter tells: it has got further."""
        self._told.watchdog.progress()
        self._told.hear(event)

    @contextmanager
    def _accounted(self) -> Iterator[None]:
        """An error ends this case alone, but a listener's, and what ends all of them."""
        try:
            yield
        except Exception as error:
            if self._told.ends_the_batch(error):
                raise
            self._result = _stopped(self._account, error)


def _stopped(account: Account, error: Exception) -> CaseResult:
    """Result of a case that an error ended: one case's, out of memory for example, isn't the end of a night's batch."""
    if isinstance(error, RefusalError):
        return account.result("refused", error.code, error.reason)
    log.exception("case %s failed", account.candidate.name)
    return account.result("failed", "internal", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _flags(candidate: Candidate, volume: Volume, model: Model) -> list[str]:
    """What is unusual about a scan."""
    flags = [f"note: {note}" for note in volume.source.notes]
    if volume.source.stored is not None:
        flags.append(
            f"tilt: {tilt_degrees(volume.source.stored):.1f} degrees, resampled onto straight slices for the network;"
            " the mask is on the original slices"
        )
    flags += content_flags(volume)
    mismatch = model.mismatch(candidate.modality, volume.geometry)
    return flags if mismatch is None else [*flags, f"outside-training: {mismatch.reason}"]


def _found(prediction: Prediction) -> tuple[LabelResult, ...]:
    """Volume and quality of each label."""
    counts, sides = prediction.mask.voxel_counts(), border_sides(prediction.mask)
    return tuple(
        LabelResult(
            value=label.value,
            name=label.name,
            volume_ml=round(counts[label.value] * prediction.mask.geometry.voxel_volume_ml, 6),
            voxels=counts[label.value],
            confidence=prediction.quality[label.value].confidence,
            agreement=prediction.quality[label.value].agreement,
            touches_border=tuple(sides.get(label.value, "")),
        )
        for label in prediction.mask.labels
    )


def _write(account: Account, case: FinishedCase, folder: Path) -> ExportError | None:
    """Write every output, and return what kept one that was asked for from being written.

    Each is accounted for as soon as it is there, so that also a case that fails half-way names what it left.
    """
    problem: ExportError | None = None
    settings = account.job.settings
    for output in chosen(settings, case.scan.source):
        try:
            written = output.write(case, folder)
        except ExportError as error:
            account.flags.append(f"{output.name}: {error.code}: {error.reason}")
            if output.required(settings):
                problem = problem or error
        else:
            account.flags += [f"{output.name}: {note}" for note in written.notes]
            case = written.case or case
        account.files |= file_hashes(folder, output.own(folder))
    return problem
