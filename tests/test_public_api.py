"""The public names: listed once, and changed on purpose only."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import volseg

PUBLIC = {
    "CaseResult",
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
    "save",
    "segment",
}


def test_public_names_are_locked() -> None:
    assert set(volseg.__all__) == PUBLIC
    assert list(volseg.__all__) == sorted(volseg.__all__)


@pytest.mark.parametrize("name", sorted(volseg._HOMES))
def test_name_is_what_its_home_says(name: str) -> None:
    value = getattr(volseg, name)
    assert value is getattr(importlib.import_module(volseg._HOMES[name]), name)
    assert value.__name__ == name
    assert value.__doc__


def test_type_checkers_and_programs_read_one_list() -> None:
    # Without `__init__.pyi` a type checker would see no names at all, and with another list others.
    assert set(volseg._HOMES) == PUBLIC - {"__version__"}
    assert Path(volseg.__file__).with_suffix(".pyi").is_file()


def test_names_are_listed_before_they_are_used() -> None:
    assert set(dir(volseg)) >= PUBLIC


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Volumes'"):
        getattr(volseg, "Volumes")  # noqa: B009


def test_typed_marker_is_there() -> None:
    assert (Path(volseg.__file__).parent / "py.typed").is_file()
