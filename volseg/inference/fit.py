"""Whether a scan is one of those that a model was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volseg.config import Recipe
from volseg.geometry import Geometry
from volseg.models.folder import Span, TrainedOn
from volseg.preprocess.grid import model_axes

#: How far a spacing or field of view may lie outside the range of the training cases, as a factor.
RANGE_MARGIN = 1.25


@dataclass(frozen=True)
class Mismatch:
    """Why a scan doesn't fit a model; `code` is a key of `volseg.errors.CODES`."""

    code: str
    reason: str


def _outside(value: float, span: Span) -> bool:
    return not span[0] / RANGE_MARGIN <= value <= span[1] * RANGE_MARGIN


def _span(span: Span) -> str:
    return f"{span[0]:g}" if span[0] == span[1] else f"{span[0]:g} to {span[1]:g}"


def range_mismatch(geometry: Geometry, recipe: Recipe, trained_on: TrainedOn) -> Mismatch | None:
    """Say where spacing or field of view lie beyond the training cases' by more than `RANGE_MARGIN`."""
    turned = geometry.turned(model_axes(geometry, recipe))
    quantities: tuple[tuple[str, str, Sequence[float], Sequence[Span] | None], ...] = (
        ("spacing", "spacing", turned.spacing_mm, trained_on.spacing_mm),
        ("field-of-view", "field of view", turned.extent_mm, trained_on.extent_mm),
    )
    for code, name, values, spans in quantities:
        if spans and any(_outside(value, span) for value, span in zip(values, spans, strict=True)):
            found = " x ".join(f"{value:.4g}" for value in values)
            known = " x ".join(_span(span) for span in spans)
            return Mismatch(code, f"{name} of {found} mm; the model was trained on {known} mm")
    return None
