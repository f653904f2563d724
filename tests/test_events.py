from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError, asdict

import pytest

from volseg.errors import CancelledError, VolsegError
from volseg.events import Cancel, CaseBegun, Event, Listener, Progress, nobody


def test_events_are_data() -> None:
    event = Progress(case="a", done=2, count=9, stage="network")
    assert asdict(event) == {"case": "a", "done": 2, "count": 9, "stage": "network"}
    assert event == Progress(case="a", done=2, count=9, stage="network")
    assert event != CaseBegun(case="a", number=1, count=9)
    with pytest.raises(FrozenInstanceError):
        event.done = 3  # type: ignore[misc]


def test_a_function_listens() -> None:
    heard: list[Event] = []
    listeners: tuple[Listener, ...] = (heard.append, nobody)
    for listener in listeners:
        listener(CaseBegun(case="a", number=1, count=2))
    assert heard == [CaseBegun(case="a", number=1, count=2)]


def test_cancelling_in_one_thread_ends_another() -> None:
    cancel, rounds, ended = Cancel(), threading.Semaphore(0), []

    def work() -> None:
        try:
            while True:
                cancel.raise_if_cancelled()
                rounds.release()
        except VolsegError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert rounds.acquire(timeout=5)
    assert not cancel.cancelled
    cancel.cancel()
    thread.join(timeout=5)
    assert cancel.cancelled
    assert [type(error) for error in ended] == [CancelledError]
