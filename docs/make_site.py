"""The documentation as a site: ``python -m docs.make_site`` (``make docs``) writes ``site/``.

Pages are the repository's Markdown as it is, laid out as in the checkout, so that links between them stay; with them
comes the reference of the public names, from their docstrings.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from docs.api_page import page

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "site_pages"
FOLDERS = ("docs", "benchmarks", "sample_data", "volseg", "pipelines")

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)([^)]*)\)")


def sources() -> Iterator[Path]:
    """The repository's pages."""
    yield from ROOT.glob("*.md")
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.md")


def linked(text: str, here: Path) -> Iterator[Path]:
    """Files in the repository that a page links to."""
    for _, _, target, _ in LINK.findall(text):
        path = Path(os.path.normpath(here / target))
        if path.is_file():
            yield path


def without_folders(text: str, here: Path) -> str:
    """A page whose links to folders, for which a site has no page, are their words alone."""
    return LINK.sub(lambda link: link[2] if (here / link[3]).is_dir() else link[0], text)


def lay_out() -> None:
    """Write every page and what it links to below `PAGES`."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for source in sources():
        text = source.read_text(encoding="utf-8")
        for path in [source, *linked(text, source.parent)]:
            copy = PAGES / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        (PAGES / source.relative_to(ROOT)).write_text(without_folders(text, source.parent), encoding="utf-8")
    (PAGES / "docs" / "api.md").write_text(page(), encoding="utf-8")


def main() -> int:
    """Make the site; the exit code is that of the maker, which fails on a link that leads nowhere."""
    lay_out()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
