"""The public names: listed once, and changed on purpose only."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import volseg

PUBLIC = {
    "ExportError",
    "Geometry",
    "GeometryError",
    "InputError",
    "Label",
    "LabelVolume",
    "Model",
    "ModelError",
    "RecipeError",
    "RefusalError",
    "TrainingError",
    "UsageError",
    "VolsegError",
    "Volume",
    "__version__",
    "load",
    "load_model",
}


def test_public_names_are_locked() -> None:
    assert set(volseg.__all__) == PUBLIC
    assert list(volseg.__all__) == sorted(volseg.__all__)


def test_every_name_has_a_home() -> None:
    assert set(volseg._HOMES) == PUBLIC - {"__version__"}


def test_type_checkers_see_the_same_homes() -> None:
    tree = ast.parse(Path(volseg.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("volseg.")
        for alias in node.names
    }
    assert seen == volseg._HOMES


@pytest.mark.parametrize("name", sorted(volseg._HOMES))
def test_name_is_what_its_home_says(name: str) -> None:
    value = getattr(volseg, name)
    assert value is getattr(importlib.import_module(volseg._HOMES[name]), name)
    assert value.__name__ == name
    assert value.__doc__


def test_names_are_listed_before_they_are_used() -> None:
    assert set(dir(volseg)) >= PUBLIC


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Volumes'"):
        _ = volseg.Volumes


def test_typed_marker_is_there() -> None:
    assert (Path(volseg.__file__).parent / "py.typed").is_file()
