"""Recipes from YAML and JSON, and what is said of one that isn't right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from volseg.config.recipe import Recipe
from volseg.errors import RecipeError
from volseg.files import read_text


def validation_problem(error: ValidationError) -> str:
    """One line from a pydantic error: where, what was given, what is wrong."""
    problems = []
    locs = [item["loc"] for item in error.errors()]
    for item in error.errors():
        depth = len(item["loc"])
        if item["type"] == "too_short" and any(loc[:depth] == item["loc"] != loc for loc in locs):
            continue  # it only counts the entries that have no problem of their own
        place = ".".join(str(part) for part in item["loc"]) or "recipe"
        if item["type"] == "extra_forbidden":
            problems.append(f"{place}: no such key")
        else:
            given = item["input"]
            whole = isinstance(given, dict | BaseModel) or item["type"] == "json_invalid"
            shown = "" if whole else f" (got {given!r})"
            problems.append(f"{place}: {item['msg']}{shown}")
    return "; ".join(problems)


def recipe_from_dict(content: Any, where: str) -> Recipe:
    """Recipe from parsed YAML or JSON; `where` names it in errors."""
    if not isinstance(content, dict):
        raise RecipeError(f"{where}: not a recipe: expected keys and values, found {type(content).__name__}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {validation_problem(error)}") from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises
    ------
    RecipeError
        The file is absent, not YAML, or holds a key or value that isn't allowed; the message names it.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    return recipe_from_dict(content, str(path))
