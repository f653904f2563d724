"""The documentation says what the code does."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path

import pytest

from volseg.errors import CODES
from volseg.export.outputs import named

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "sample_data").rglob("*.md")),
]


def rows(page: str) -> list[list[str]]:
    """Cells of the tables' rows whose first cell is code."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


def test_refusals_are_those_of_the_code() -> None:
    table = rows("refusals.md")
    assert [(code.strip("`"), found) for code, found, _ in table] == list(CODES.items())
    assert all(helps for _, _, helps in table)


def test_tolerances_are_those_of_the_code() -> None:
    table = rows("conventions.md")
    for name, value, home, _ in table:
        module = home.strip("`").removesuffix(".py").replace("/", ".")
        assert float(value.split()[0]) == getattr(importlib.import_module(module), name.strip("`")), name
    constants = {
        name
        for path in (ROOT / "volseg").rglob("*.py")
        for name in re.findall(
            r"^([A-Z_]+_MM|[A-Z_]+_SHARE|[A-Z_]+_COSINE|[A-Z_]+_DEGREES) = ", path.read_text("utf-8"), re.M
        )
    }
    assert {name.strip("`") for name, *_ in table} >= constants
    assert "EVENED_MM" in constants


def test_the_flow_lists_the_parts_that_there_are() -> None:
    parts = [row[0].strip("`") for row in rows("flow.md")]
    there = {
        path.name.removesuffix(".py")
        for path in (ROOT / "volseg").iterdir()
        if path.is_dir() or (path.suffix == ".py" and not path.name.startswith("__"))
    }
    assert set(parts) == there - {"__pycache__"}


def test_the_recipes_page_is_that_of_the_code() -> None:
    maker = runpy.run_path(str(ROOT / "docs" / "make_recipe_page.py"))
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == maker["page"]()


def test_the_results_schema_is_that_of_the_code() -> None:
    maker = runpy.run_path(str(ROOT / "docs" / "make_result_schema.py"))
    assert (ROOT / "docs" / "result.schema.json").read_text(encoding="utf-8") == maker["page"]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_formats_are_those_of_the_code() -> None:
    files = {name.strip("`"): file.strip("`") for name, file, *_ in rows("formats.md")}
    assert files == {name: output.files for name, output in named().items()}
