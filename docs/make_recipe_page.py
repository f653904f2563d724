"""Write docs/recipe.md from the recipe's own models: ``python docs/make_recipe_page.py``. A test compares the two."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from volseg.config import Recipe

PAGE = Path(__file__).with_name("recipe.md")
HEAD = """# The recipe

A recipe is one YAML file that holds everything that one segmentation task chooses; `pipelines/` has examples. A key
that isn't listed here is an error. D, H, W are the axes that `orientation` defines. This page is made from
`volseg/config` by `docs/make_recipe_page.py`.
"""


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a field's type names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def default(field: FieldInfo) -> str:
    """The field's default as YAML would have it."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "see below"
    shown = json.dumps(value, default=lambda section: section.model_dump(mode="json", exclude_unset=True))
    return f"`{shown}`"


def choices(annotation: Any) -> str:
    """The words that a field may be, where it is one of a few."""
    if get_origin(annotation) is Literal:
        return " (" + ", ".join(f"`{word}`" for word in get_args(annotation)) + ")"
    return ""


def table(model: type[BaseModel], title: str) -> Iterator[str]:
    """A section's table, then those of the sections inside it."""
    below = []
    yield f"\n## {title}\n"
    yield inspect.cleandoc(model.__doc__ or "") + "\n"
    yield "| key | default | |\n| --- | --- | --- |"
    for name, field in model.model_fields.items():
        text = " ".join((field.description or "").split()) + choices(field.annotation)
        yield f"| `{name}` | {default(field)} | {text} |"
        below += [(inner, f"{title}.{name}" if title != "recipe" else name) for inner in sections(field.annotation)]
    for inner, path in below:
        yield from table(inner, path)


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(table(Recipe, "recipe")) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
