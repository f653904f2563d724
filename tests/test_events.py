from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError, asdict

import pytest

from volseg.errors import CancelledError, VolsegError
from volseg.events import Cancel, CaseBegun, Event, Listener, Progress, Stage, nobody


def test_events_are_data() -> None:
    event = Progress(case="a", done=2, count=9, stage="network")
    assert asdict(event) == {"case": "a", "done": 2, "count": 9, "stage": "network"}
    assert event == Progress(case="a", done=2, count=9, stage="network")
    assert event != Progress(case="b", done=2, count=9, stage="network")
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


def test_a_stage_tells_and_ends_where_it_is_told_to() -> None:
    heard: list[Event] = []
    stage = Stage(case="a", name="first stage", listener=heard.append)
    stage.reached(0, 2)
    stage.cancel.cancel()
    with pytest.raises(CancelledError, match="told to end"):
        stage.reached(1, 2)
    assert heard == [Progress(case="a", done=done, count=2, stage="first stage") for done in (0, 1)]
