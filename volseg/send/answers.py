"""What a destination answers, whatever it is spoken to in."""

from __future__ import annotations

from dataclasses import dataclass


class UnreachableError(Exception):
    """Nobody answers.

    Parameters
    ----------
    said
        Sentence on why.
    later
        Whether another try may be answered.
    """

    def __init__(self, said: str, *, later: bool = True) -> None:
        super().__init__(said)
        self.later = later


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of an instance.

    Attributes
    ----------
    accepted
        Whether it is stored now.
    said
        Reason for a refusal.
    later
        Whether another try may be answered otherwise.
    """

    accepted: bool
    said: str = ""
    later: bool = False
