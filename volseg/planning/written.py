"""A recipe as YAML in which the reason stands above each choice."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 116


@dataclass(frozen=True)
class Choice:
    """One key of the recipe: its value, or the choices of the section below it, and why."""

    key: str
    value: Any
    reason: str = ""

    @property
    def section(self) -> bool:
        """Whether the value is a section of choices."""
        return isinstance(self.value, tuple) and bool(self.value) and isinstance(self.value[0], Choice)


def content(choices: Sequence[Choice]) -> dict[str, Any]:
    """The recipe without reasons, as its YAML parses."""
    return {choice.key: content(choice.value) if choice.section else choice.value for choice in choices}


def text(choices: Sequence[Choice], head: Sequence[str]) -> str:
    """The recipe as YAML, with paragraphs of comment above it."""
    paragraphs = [line for paragraph in head for line in (*_comment(paragraph, ""), "#")]
    return "\n".join([*paragraphs[:-1], "", *_lines(choices, "")]) + "\n"


def printable(words: str) -> str:
    """Words on one line, without characters that YAML or a terminal takes for more than text."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())


def _lines(choices: Sequence[Choice], indent: str) -> Iterator[str]:
    for choice in choices:
        yield from _comment(choice.reason, indent)
        if choice.section:
            yield f"{indent}{choice.key}:"
            yield from _lines(choice.value, indent + "  ")
        elif isinstance(choice.value, list) and choice.value and isinstance(choice.value[0], dict):
            yield f"{indent}{choice.key}:"
            yield from (f"{indent}  - {_flow(item)}" for item in choice.value)
        else:
            yield f"{indent}{choice.key}: {_flow(choice.value)}"


def _comment(words: str, indent: str) -> list[str]:
    lines = textwrap.wrap(printable(words), WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in lines]


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        # YAML 1.1 takes 1e-05 for a word; it needs the point.
        shown = repr(float(value))  # numpy's numbers are floats that show as np.float64(...)
        return shown if "." in shown else shown.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)
