"""Descriptions of parameters, attributes and fields begin with a noun."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "volseg"

#: First words of what is no noun phrase: prepositions, question words (all but "whether"), participles and orders.
FRAGMENT = re.compile(
    r"""(about|above|add|added|adds|after|already|also|among|and|apply|as|at|because|before|below|beside|
    between|but|by|called|draw|find|for|from|give|how|if|in|inside|into|keep|let|made|must|not|of|off|on|
    only|or|per|put|see|since|takes|than|that|then|those|to|told|too|until|what|when|where|which|who|
    whom|whose|why|with|within|without|write)\b""",
    re.IGNORECASE | re.VERBOSE,
)
#: A shape, in round or square brackets, that says nothing of what has it; a literal; a number.
BARE = re.compile(r"[(\[][^)\]]*[)\]]\s*([.,:;]|$)|``|\d+ to \d+\b|None\b")
SECTIONS = ("Parameters", "Other Parameters", "Attributes")


def described(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and descriptions in the sections of a numpydoc docstring that have such."""
    blocks = re.split(r"^(.+)\n-{3,}$", docstring, flags=re.MULTILINE)
    for title, body in zip(blocks[1::2], blocks[2::2], strict=True):
        if title in SECTIONS:
            yield from re.findall(r"^(\S.*)\n((?:\n?[ ]+\S.*\n?)+)", body, flags=re.MULTILINE)


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Names and descriptions of a model's fields: the string under one, or its ``description``."""
    for field, below in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(field, ast.AnnAssign):
            name = ast.unparse(field.target)
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                yield name, str(below.value.value)
            if isinstance(field.value, ast.Call):
                texts = [word.value for word in field.value.keywords if word.arg == "description"]
                if getattr(field.value.func, "id", "") == "option":
                    texts += field.value.args[1:2]
                yield from ((name, ast.literal_eval(text)) for text in texts)


def descriptions(source: str) -> Iterator[tuple[str, str]]:
    """``line name`` and the description of everything that is described in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = [*described(ast.get_docstring(node) or "")]
            found += fields(node) if isinstance(node, ast.ClassDef) else []
            yield from ((f"{node.lineno} {node.name}.{name}", " ".join(text.split())) for name, text in found)


def is_noun_phrase(description: str) -> bool:
    """Whether a description doesn't begin with what can't begin one."""
    return bool(description) and not FRAGMENT.match(description) and not BARE.match(description)


MODULE = dedent(
    '''
    class Config:
        """A part.

        Attributes
        ----------
        step
            That the weights are of.
        left, right
            Sides of the scan, of which
            the left one comes first.
        """

        rate: float = 0.1
        """Of the optimiser."""
        engine: str = Field("", description="What ran it.")
        tta: bool = option(False, "Whether passes are mirrored.", affects_result=True)

    def read(path, names):
        """Read.

        Parameters
        ----------
        path
            A file.

            It exists.
        names
            Of labels.

        Returns
        -------
        list
            What is read.
        """
    '''
)


def test_descriptions_of_every_kind_are_found() -> None:
    assert [(where.split(maxsplit=1)[1], text) for where, text in descriptions(MODULE)] == [
        ("Config.step", "That the weights are of."),
        ("Config.left, right", "Sides of the scan, of which the left one comes first."),
        ("Config.rate", "Of the optimiser."),
        ("Config.engine", "What ran it."),
        ("Config.tta", "Whether passes are mirrored."),
        ("read.path", "A file. It exists."),
        ("read.names", "Of labels."),
    ]


@pytest.mark.parametrize(
    ("description", "good"),
    [
        ("Step of the weights.", True),
        ("The step.", True),
        ("Whether passes are mirrored.", True),
        ("(N, 3) points in millimetres.", True),
        ("One path a channel.", True),
        ("Offset of the data; None where there is none.", True),
        ("That the weights are of.", False),
        ("As `text` parses.", False),
        ("(N, 3).", False),
        ("[i, j, k], or [c, i, j, k] where there are channels.", False),
        ("None where it isn't known.", False),
        ("0 to 1.", False),
        ("", False),
    ],
)
def test_what_a_noun_phrase_is(description: str, good: bool) -> None:
    assert is_noun_phrase(description) == good


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_descriptions_begin_with_a_noun(path: Path) -> None:
    found = descriptions(path.read_text(encoding="utf-8"))
    assert [(where, text) for where, text in found if not is_noun_phrase(text)] == []


def test_there_are_descriptions() -> None:
    assert sum(len([*descriptions(path.read_text(encoding="utf-8"))]) for path in PACKAGE.rglob("*.py")) > 500
