"""Sending with tries: what is accepted is kept at once, what isn't is tried again after growing pauses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from volseg.errors import UsageError
from volseg.send.answers import Answer, UnreachableError
from volseg.send.destination import Destination, Dimse
from volseg.send.instances import Instance, Sent, find_instances

#: Seconds before each further try.
PAUSES_S = (2.0, 4.0, 8.0, 16.0)


class _Channel(Protocol):
    def send(self, instance: Instance) -> Answer: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an instance.

    Attributes
    ----------
    accepted
        Whether the destination has it.
    before
        Whether an earlier call sent it.
    said
        Reason where it has not.
    """

    instance: Instance
    accepted: bool
    before: bool = False
    said: str = ""


def send(
    path: Path,
    to: Destination,
    *,
    pauses_s: Sequence[float] = PAUSES_S,
    waiting: Callable[[str, float], None] = lambda _why, _seconds: None,
) -> Iterator[Outcome]:
    """Send the DICOM files of a folder, or one, and say what became of each.

    Parameters
    ----------
    path
        File, or folder such as ``OUT``.
    to
        Destination of the files.
    pauses_s
        Seconds before each further try: as many tries.
    waiting
        Listener that hears why another try is needed, and after how many seconds it is made.

    Raises
    ------
    UsageError
        There is nothing to send.
    """
    instances = find_instances(path)
    sent = Sent(path, str(to))
    yield from (Outcome(instance=each, accepted=True, before=True) for each in instances if each in sent)
    left = [instance for instance in instances if instance not in sent]
    for pause_s in (*pauses_s, None):
        why = ""
        again: list[Instance] = []
        for instance, answer in _tried(left, to):
            if answer.accepted:
                sent.add(instance)
            elif answer.later and pause_s is not None:
                again, why = [*again, instance], answer.said
                continue
            yield Outcome(instance=instance, accepted=answer.accepted, said=answer.said)
        left = again
        if not left or pause_s is None:
            return
        waiting(why, pause_s)
        time.sleep(pause_s)


def _tried(instances: Sequence[Instance], to: Destination) -> Iterator[tuple[Instance, Answer]]:
    """Each instance with its answer; where the connection is lost, that is the answer for all that are left."""
    if not instances:
        return
    done = 0
    try:
        with _opened(to, instances) as channel:
            for instance in instances:
                answer = channel.send(instance)
                done += 1
                yield instance, answer
    except UnreachableError as error:
        yield from (
            (instance, Answer(accepted=False, said=str(error), later=error.later)) for instance in instances[done:]
        )


def _opened(to: Destination, instances: Sequence[Instance]) -> AbstractContextManager[_Channel]:
    if isinstance(to, Dimse):
        try:
            from volseg.send.storescu import Association
        except ModuleNotFoundError as error:
            raise UsageError("C-STORE needs pynetdicom: pip install 'volseg[send]'") from error
        return Association(to, instances)
    from volseg.send.stow import Server

    return Server(to)
