"""Put the tables of the committed results into this folder's README.md, between its markers.

.venv/bin/python -m benchmarks.training.tables
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.training._curves import Curves, curves_table
from benchmarks.training._results import RESULTS, folds_table, read_folds
from benchmarks.training.step import steps_table

PAGE = Path(__file__).with_name("README.md")
ABSENT = "Not measured yet."


def sections(results: Path) -> dict[str, str]:
    """Text of each part of the page, by the name in its markers."""
    curves = results / "curves.json"
    steps = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("step_*.json"))]
    return {
        "cross-validation": _folds(results / "cross_validation"),
        "cross-validation, 8 minutes": _folds(results / "cross_validation_8"),
        "curves": _curves(Curves.model_validate_json(curves.read_bytes())) if curves.exists() else ABSENT,
        "steps": "\n\n".join(map(steps_table, steps)) or ABSENT,
    }


def _folds(folder: Path) -> str:
    folds = read_folds(folder)
    return folds_table(folds) if folds else ABSENT


def _curves(curves: Curves) -> str:
    return f"![Dice against minutes](results/curves.png)\n\n{curves_table(curves)}"


def filled(page: str, texts: dict[str, str]) -> str:
    """The page with each text between ``<!-- name -->`` and ``<!-- end -->``."""
    for name, text in texts.items():
        head, found, rest = page.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        if not (found and end):
            raise ValueError(f"the page needs <!-- {name} --> on a line of its own, and <!-- end --> after it")
        page = f"{head}{found}\n{text}\n\n{end}{tail}"
    return page


def main() -> None:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), sections(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
