"""Batches as the tests of them run one: results as ``result.json`` has them, and no picture unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from volseg.batch.case import Job
from volseg.batch.runner import run_batch
from volseg.inference.options import Options
from volseg.inference.predictor import Model
from volseg.results.case import CaseResult

Result = dict[str, Any]


def as_json(result: CaseResult) -> Result:
    """A result as its file has it, and ``reused`` where an earlier run's still held."""
    content: Result = result.model_dump(mode="json")
    return content | ({"reused": True} if result.reused else {})


def segment(
    path: Path,
    out: Path,
    model: Model,
    series: Sequence[str] = (),
    *,
    options: Options | None = None,
    after: Callable[[Result], None] = lambda _: None,
    preview: bool = False,
    told: dict[str, Any] | None = None,
    **job: Any,
) -> list[Result]:
    """Every case's result."""
    wanted = Job(model=model, options=options or Options(), preview=preview, **job)
    listening: dict[str, Any] = {"before": lambda *_: None} | (told or {})
    results = run_batch(path, out, wanted, series, after=lambda result: after(as_json(result)), **listening)
    return [as_json(result) for result in results]
