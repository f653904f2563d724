"""Batches as the tests of them run one: results as ``result.json`` has them, and no picture unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from volseg.batch.request import Request
from volseg.batch.runner import run_batch
from volseg.events import CaseDone, Event, Listener, nobody
from volseg.inference import Model, Options
from volseg.results.case import CaseResult
from volseg.results.settings import Settings

Result = dict[str, Any]


def as_json(result: CaseResult) -> Result:
    """A result as its file has it, and ``reused`` where an earlier run's still held."""
    content: Result = result.model_dump(mode="json")
    return content | ({"reused": True} if result.reused else {})


def request_for(path: Path, out: Path, model: Model, options: Options | None = None, **more: Any) -> Request:
    """A request that runs the model with these options."""
    chosen = {field.name: getattr(options or Options(), field.name) for field in fields(Options)}
    chosen |= {"tta": chosen["mirroring"], "labels": chosen["labels"] or None}
    given = {name: value for name, value in chosen.items() if name in Settings.model_fields}
    return Request.of(input=path, output=out, model=str(model.folder.path), **{**given, "preview": False, **more})


def segment(
    path: Path,
    out: Path,
    model: Model,
    series: Sequence[str] = (),
    *,
    options: Options | None = None,
    after: Callable[[Result], None] = lambda _: None,
    listener: Listener = nobody,
    **more: Any,
) -> list[Result]:
    """Every case's result; `after` is called with each when it is there."""

    def hear(event: Event) -> None:
        listener(event)
        if isinstance(event, CaseDone):
            after(as_json(event.result))

    request = request_for(path, out, model, options, series=tuple(series), **more)
    return [as_json(result) for result in run_batch(request, model, listener=hear)]
