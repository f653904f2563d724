"""The watchdog: what it names, how often, and what it leaves alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import volseg.batch.runner
import volseg.export.preview
from tests.helpers.batch import segment
from tests.helpers.tiny import scan, threshold_model, write_nifti
from volseg.batch.watchdog import Watchdog
from volseg.events import Event, Stalled, nobody
from volseg.inference import load_model

QUIET_S = 0.08
WAIT_S = 20


class Told:
    """What a watchdog said, and a way to wait for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, float]] = []
        self._more = threading.Condition()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stalled):
            with self._more:
                self.lines.append((event.case, event.stage, event.seconds))
                self._more.notify_all()

    def wait_for(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self.lines) >= count, WAIT_S)


def test_a_stage_that_stops_is_named_whenever_its_silence_has_doubled() -> None:
    told = Told()
    with Watchdog(told, QUIET_S) as watchdog, watchdog.stage("scan", "load"):
        told.wait_for(3)
    assert {line[:2] for line in told.lines} == {("scan", "load")}
    first, second, third = (seconds for *_, seconds in told.lines[:3])
    assert first >= QUIET_S
    assert second >= 2 * first
    assert third >= 2 * second


def test_only_the_stage_that_stopped_is_named() -> None:
    told = Told()
    with Watchdog(told, QUIET_S) as watchdog:
        ended = threading.Event()

        def works() -> None:
            with watchdog.stage("other", "network"):
                while not ended.wait(QUIET_S / 20):
                    watchdog.progress()

        thread = threading.Thread(target=works)
        thread.start()
        try:
            with watchdog.stage("scan", "write"):
                told.wait_for(2)
        finally:
            ended.set()
            thread.join()
    # A machine that is busy may hold up the other for a moment, too: it is named more rarely then.
    assert [line[:2] for line in told.lines].count(("scan", "write")) >= 2


def test_a_stage_that_is_over_is_silent() -> None:
    told = Told()
    with Watchdog(told, QUIET_S) as watchdog:
        with watchdog.stage("scan", "load"):
            pass
        time.sleep(3 * QUIET_S)
    assert told.lines == []


def test_a_stage_gets_three_times_the_longest_pause_it_made_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watchdog = Watchdog(nobody, 60)
    with watchdog.stage("first", "network"):
        now += 50  # 50 s without progress, then some
        watchdog.progress()
        now += 40
    with watchdog.stage("second", "network"):
        now += 149
        assert watchdog._due() == []
        now += 1
        assert watchdog._due() == [("second", "network", 150)]
        now += 149
        assert watchdog._due() == []
        now += 1
        assert watchdog._due() == [("second", "network", 300)]
    with watchdog.stage("third", "load"):
        now += 60
        assert watchdog._due() == [("third", "load", 60)]


def test_a_batch_says_which_stage_of_which_case_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threshold_model(tmp_path / "model", window=[32, 40, 32])
    for name in ("a", "b"):
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", scan((30, 40, 30)))
    told = Told()

    def stops(*given: object) -> None:
        path = given[-1]
        assert isinstance(path, Path)
        if path.parent.name == "a":
            told.wait_for(1)
        path.write_bytes(b"x")

    monkeypatch.setattr(volseg.export.preview, "write_preview", stops)
    monkeypatch.setattr(volseg.batch.runner, "Watchdog", lambda listener: Watchdog(listener, QUIET_S))
    model = load_model(tmp_path / "model")
    results = segment(tmp_path / "in", tmp_path / "out", model, preview=True, listener=told)
    assert ("a", "write") in [line[:2] for line in told.lines]
    assert [result["status"] for result in results] == ["done", "done"]
