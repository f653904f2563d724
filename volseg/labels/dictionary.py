"""Names of structures and their codes: SNOMED CT's, and DICOM's own where there is none.

`dictionary.csv` has them from published tables, named in its last column. A name is looked up by its words, whatever
their order, case and separators; nothing else is guessed, so that a structure has its own code or none.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from volseg.volume import Code, Label

_FILE = Path(__file__).with_name("dictionary.csv")
#: Words, and numbers that stand alone: of "vertebrae_L1" the last word is "L1", of "rib_left_1" the number is one.
_WORDS = re.compile(r"[^\W\d_]+\d*|\d+")
#: What a word is short for.
_LONG = {"l": "left", "r": "right", "lt": "left", "rt": "right", "lh": "left", "rh": "right"}


@dataclass(frozen=True, kw_only=True)
class Term:
    """What DICOM calls a structure.

    Attributes
    ----------
    name
        Name, as its table has it.
    code, category, modifier
        Codes, as those of a `volseg.volume.Label`.
    source
        The table that says so.
    """

    name: str
    code: Code
    category: Code
    modifier: Code | None
    source: str


def term_of(name: str) -> Term | None:
    """The term of a structure's name; None where no table has it."""
    return _terms().get(_key(name))


def with_codes(label: Label) -> Label:
    """`label` with the dictionary's code, category and modifier, where it has no code and its name is there."""
    if label.code is not None or (term := term_of(label.name)) is None:
        return label
    return replace(label, code=term.code, category=term.category, modifier=label.modifier or term.modifier)


@cache
def _terms() -> dict[tuple[str, ...], Term]:
    with _FILE.open(encoding="utf-8", newline="") as file:
        terms = [_term(row) for row in csv.DictReader(file)]
    return {_key(term.name): term for term in terms}


def _term(row: dict[str, str]) -> Term:
    code, category, modifier = (
        Code(value=row[f"{prefix}value"], scheme=row[f"{prefix}scheme"], meaning=row[f"{prefix}meaning"])
        for prefix in ("", "category ", "modifier ")
    )
    return Term(
        name=row["name"],
        code=code,
        category=category,
        modifier=modifier if modifier.value else None,
        source=row["source"],
    )


def _key(name: str) -> tuple[str, ...]:
    words = _WORDS.findall(name.lower())
    return tuple(sorted(_LONG.get(word, word) for word in words))
