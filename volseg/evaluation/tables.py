"""An `Evaluation` as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from volseg.errors import UsageError
from volseg.evaluation.folders import Evaluation
from volseg.evaluation.scores import STATES, LabelScore
from volseg.evaluation.statistics import Statistics
from volseg.files import write_atomically

_LABEL_COLUMNS = tuple(field.name for field in fields(LabelScore))
_STATISTICS = tuple(field.name for field in fields(Statistics))


def document(evaluation: Evaluation) -> dict[str, Any]:
    """Everything, as JSON takes it; what isn't defined is null.

    Returns
    -------
    dict
        ``{"tolerance_mm", "ignored", "cases": [{"case", "accuracy", "labels": [LabelScore]}], "summary": [Summary],
        "not_evaluated": [{"case", "reason", "code"}], "notes"}``.
    """
    return {
        "tolerance_mm": evaluation.tolerance_mm,
        "ignored": evaluation.ignored,
        "cases": [asdict(case) for case in evaluation.cases],
        "summary": [asdict(summary) for summary in evaluation.summaries()],
        "not_evaluated": [asdict(item) for item in evaluation.not_evaluated],
        "notes": list(evaluation.notes),
    }


def as_json(evaluation: Evaluation) -> str:
    """`document` as text."""
    return json.dumps(document(evaluation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def metrics_csv(evaluation: Evaluation) -> str:
    """One row for each case and label; what isn't defined is an empty cell, and ``state`` says why."""
    rows = (
        [case.case, *(getattr(score, name) for name in _LABEL_COLUMNS)]
        for case in evaluation.cases
        for score in case.labels
    )
    return _csv(("case", *_LABEL_COLUMNS), rows)


def summary_csv(evaluation: Evaluation) -> str:
    """One row for each label and metric; ``n`` is the number of cases that the statistics are of."""
    head = ("value", "name", "metric", "cases", *(state.replace(" ", "_") for state in STATES), *_STATISTICS)
    rows = (
        [summary.value, summary.name, metric, summary.cases]
        + [summary.states[state] for state in STATES]
        + [getattr(statistics, name) for name in _STATISTICS]
        for summary in evaluation.summaries()
        for metric, statistics in summary.metrics.items()
    )
    return _csv(head, rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write ``metrics.csv``, ``summary.csv`` and ``metrics.json``, each whole or not at all.

    Raises
    ------
    UsageError
        The folder can't be made or written to.
    """
    contents = {
        "metrics.csv": metrics_csv(evaluation),
        "summary.csv": summary_csv(evaluation),
        "metrics.json": as_json(evaluation),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"{folder}: can't be written to: {error.strerror or error}") from error
