"""The reference of the public names, as Markdown, from their signatures and numpydoc docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import volseg

HEAD = """# Python

The names that `import volseg` has. Everything else may change from one version to the next. Axes, units and frames are
those of the [conventions](conventions.md).
"""


def sections(docstring: str) -> Iterator[tuple[str, str]]:
    """(title, text) of a numpydoc docstring; what comes before the first title has none."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.MULTILINE)
    yield "", parts[0].strip()
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        yield title, text.strip("\n")


def entries(text: str) -> Iterator[str]:
    """Items of a section such as Parameters: a line with a name, and what is indented below it."""
    for entry in re.split(r"\n(?=\S)", text):
        name, *below = entry.splitlines()
        said = " ".join(line.strip() for line in below)
        yield f"- `{name.strip()}`" + (f": {said}" if said else "")


def described(thing: Any) -> Iterator[str]:
    """What a docstring says, as Markdown."""
    for title, text in sections(inspect.getdoc(thing) or ""):
        if title in {"", "Notes"}:
            yield text
        elif title == "Examples":
            yield f"```python\n{text}\n```"
        else:
            yield f"**{title}**"
            yield "\n".join(entries(text))


def signature(name: str, thing: Any) -> str:
    """How a function or class is called, as a block of code."""
    # Annotations are strings here, and read better without their quotes.
    plain = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))
    return f"```python\n{name}{plain}\n```"


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines, as the class has them."""
    for name, value in vars(owner).items():
        plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield name, plain


def entry(name: str, thing: Any) -> Iterator[str]:
    """One public name: its heading, signature, text and, for a class, members."""
    yield f"## volseg.{name}"
    is_error = inspect.isclass(thing) and issubclass(thing, Exception)
    if callable(thing) and not is_error:
        yield signature(name, thing)
    yield from described(thing)
    for member, value in members(thing) if inspect.isclass(thing) and not is_error else ():
        yield f"### {name}.{member}"
        if not isinstance(value, property):
            yield signature(member, value)
        yield from described(value)


def page() -> str:
    """The whole page."""
    names = sorted((name for name in volseg.__all__ if name != "__version__"), key=str.lower)
    parts = [part for name in names for part in entry(name, getattr(volseg, name))]
    return HEAD + "\n" + "\n\n".join(parts) + "\n"
