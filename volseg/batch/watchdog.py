"""Which stage of which case has stopped: said, and left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from volseg.events import Listener, Stalled

#: Seconds without progress after which a stage is named, first and at least. The slowest step that is still work is a
#: window of a large network, mirrored in eight ways, on two cores: half a minute.
QUIET_S = 60.0
#: And at least as many times the longest pause that the same stage has made before and come back from.
PATIENCE = 3.0


@dataclass
class _Stage:
    case: str
    name: str
    since: float
    #: Silence after which it is named next.
    due: float


class Watchdog:
    """Names stages that don't make progress, again whenever their silence has doubled. It never stops one.

    A context manager: it watches while it is open.

    Parameters
    ----------
    listener
        The listener to tell, from a thread of its own.
    quiet_s
        Seconds without progress after which a stage counts as stalled.
    """

    def __init__(self, listener: Listener, quiet_s: float = QUIET_S) -> None:
        self._listener, self._quiet_s = listener, quiet_s
        self._stages: dict[int, _Stage] = {}
        self._longest: dict[str, float] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        # It may not keep a process from ending.
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def stage(self, case: str, name: str) -> Iterator[None]:
        """A stage of a case, in this thread, that begins and ends."""
        thread = threading.get_ident()
        with self._lock:
            self._stages[thread] = _Stage(case, name, time.monotonic(), self._silence(name))
        try:
            yield
        finally:
            self.progress()
            with self._lock:
                del self._stages[thread]

    def progress(self) -> None:
        """The stage in this thread has got further."""
        now = time.monotonic()
        with self._lock:
            stage = self._stages.get(threading.get_ident())
            if stage is not None:
                self._longest[stage.name] = max(self._longest.get(stage.name, 0.0), now - stage.since)
                stage.since, stage.due = now, self._silence(stage.name)

    def _silence(self, name: str) -> float:
        return max(self._quiet_s, PATIENCE * self._longest.get(name, 0.0))

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._quiet_s / 4)):
            for case, name, silent in self._due():
                self._listener(Stalled(case=case, stage=name, seconds=silent))

    def _due(self) -> list[tuple[str, str, float]]:
        """Stages that are to be named now."""
        now, due = time.monotonic(), []
        with self._lock:
            for stage in self._stages.values():
                silent = now - stage.since
                if silent >= stage.due:
                    stage.due = 2 * silent
                    due.append((stage.case, stage.name, silent))
        return due
