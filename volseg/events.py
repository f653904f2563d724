"""What happens while cases are segmented, told as it happens; and the token that ends a run before its time.

Whoever listens is called with one event after another: a command line draws them, a server keeps them, a test lists
them. Events are data, so that they can be compared, kept and sent on. They may come from several threads, one at a
time from each.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

from volseg.errors import CancelledError


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a case.

    Attributes
    ----------
    case
        Name of the case.
    """

    case: str


@dataclass(frozen=True, kw_only=True)
class CaseBegun(Event):
    """A case's turn with the network has come.

    Attributes
    ----------
    number, count
        Number of the case, from 1, and of all cases.
    """

    number: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """The memory of a case is planned; nothing was allocated yet.

    Attributes
    ----------
    total
        Bytes that the process will hold at most.
    text
        One line for people: the total and its parts.
    """

    total: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """A window is done, or a stage has begun, of whose windows none is done.

    Attributes
    ----------
    done, count
        Windows that are done, and all windows of this stage.
    stage
        Name of what the network works on: ``"network"``, or in a cascade ``"first stage"`` and ``"second stage"``;
        ``"coarse pass"`` where one goes before.
    """

    done: int
    count: int
    stage: str


@dataclass(frozen=True, kw_only=True)
class Stalled(Event):
    """A stage makes no progress. It goes on all the same.

    Attributes
    ----------
    stage
        Name of the stage.
    seconds
        Time since it last got further.
    """

    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """Something that a person should know of the case.

    Attributes
    ----------
    text
        One sentence without patient data.
    """

    text: str


@dataclass(frozen=True, kw_only=True)
class CaseDone(Event):
    """A case is over, and whatever was to be written of it is written.

    Attributes
    ----------
    result
        The case's result, as its folder has it.
    """

    result: Any


class Listener(Protocol):
    """Whatever can be called with an event, by any thread: a function will do. An error that it raises ends the run."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""


def nobody(event: Event, /) -> None:
    """Listen to nothing."""


class Cancel:
    """A token that ends a run between two windows; any thread may use it, and it can't be taken back."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the run is to end."""
        return self._event.is_set()

    def cancel(self) -> None:
        """End the run at the next window."""
        self._event.set()

    def raise_if_cancelled(self) -> None:
        """Go on unless the run is to end.

        Raises
        ------
        CancelledError
            `cancel` was called.
        """
        if self.cancelled:
            raise CancelledError("cancelled: the run was told to end")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A network's work on a case: it tells how far it has got, and ends where it is told to.

    Attributes
    ----------
    case, name
        Names of the case and of the stage, as `Progress` has them.
    listener
        The listener that it tells, if any.
    cancel
        The token that may end it.
    """

    case: str = ""
    name: str = "network"
    listener: Listener = nobody
    cancel: Cancel = field(default_factory=Cancel)

    def reached(self, done: int, count: int) -> None:
        """Tell how many windows are done of all, and go on unless the run is to end.

        Raises
        ------
        CancelledError
            `Cancel.cancel` was called.
        """
        self.listener(Progress(case=self.case, done=done, count=count, stage=self.name))
        self.cancel.raise_if_cancelled()
