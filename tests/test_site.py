"""The documentation as a site: complete, self-contained, and the reference has every public name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import volseg
from docs import api_page

pytestmark = pytest.mark.slow

#: What a page loads by itself; links that a reader follows are <a>.
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, made in a copy of the pages, so that a site in the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("docs", "benchmarks", "sample_data", "pipelines", "volseg"):
        shutil.copytree(root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for page in (*root.glob("*.md"), root / "LICENSE", root / "zensical.toml"):
        shutil.copyfile(page, copy / page.name)
    command = [sys.executable, "-m", "docs.make_site"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "site"


def test_every_page_is_there(site: Path, root: Path) -> None:
    pages = {path.stem for path in (root / "docs").glob("*.md")} | {"api"}
    assert {path.stem for path in (site / "docs").glob("*.html")} == pages
    assert (site / "index.html").is_file()


def test_the_menu_has_every_page(root: Path) -> None:
    (_, *groups) = tomllib.loads((root / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    listed = [path for group in groups for pages in group.values() for page in pages for path in page.values()]
    pages = {f"docs/{path.name}" for path in (root / "docs").glob("*.md")} | {"docs/api.md"}
    assert {path for path in listed if path.startswith("docs/")} == pages


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert {page.name: LOADED.findall(page.read_text("utf-8")) for page in pages} == {page.name: [] for page in pages}
    assert LOADED.search('<script src="https://a.example/b.js"></script>')
    assert not any("@import" in css.read_text("utf-8") for css in site.rglob("*.css"))


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    absent = [
        f"{page.relative_to(site)}: {link}"
        for page in site.rglob("*.html")
        if page.name != "404.html"
        for link in re.findall(r'<a [^>]*href="(?!https?:)([^"#]+)', page.read_text("utf-8"))
        if not (page.parent / link).exists()
    ]
    assert absent == []


def test_the_reference_has_every_public_name(site: Path) -> None:
    shown = (site / "docs" / "api.html").read_text("utf-8")
    for name in set(volseg.__all__) - {"__version__"}:
        assert f"volseg.{name}" in shown


def test_a_docstring_becomes_a_page() -> None:
    def example(a: int) -> str:
        """Do it.

        Parameters
        ----------
        a
            Number of times,
            at least 1.

        Returns
        -------
        str
            Words.
        """
        return "word" * a

    assert list(api_page.entry("example", example)) == [
        "## volseg.example",
        "```python\nexample(a: int) -> str\n```",
        "Do it.",
        "**Parameters**",
        "- `a`: Number of times, at least 1.",
        "**Returns**",
        "- `str`: Words.",
    ]
