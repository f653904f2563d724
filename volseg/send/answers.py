"""What a destination answers, whatever it is spoken to in."""

from __future__ import annotations

from dataclasses import dataclass


class UnreachableError(Exception):
    """Nobody answers: another try may."""


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
