"""What every part of a recipe is, and the kinds of values that its fields take."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    """Return the pair, whose smaller number comes first."""
    if pair[0] > pair[1]:
        raise ValueError("the smaller number comes first")
    return pair


def _different(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError("an axis is named twice")
    return axes


def for_all_axes(given: Any) -> Any:
    """Return one number three times, and anything else as it is."""
    return (given,) * 3 if isinstance(given, int | float) else given


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Triple = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Spacing = tuple[Positive, Positive, Positive]
Range = Annotated[tuple[float, float], AfterValidator(ascending)]
Factors = Annotated[tuple[Positive, Positive], AfterValidator(ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]
Quantiles = Annotated[tuple[Probability, Probability], AfterValidator(ascending)]
Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], AfterValidator(_different)]
Share = Annotated[float, Field(gt=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Byte = Annotated[int, Field(ge=0, le=255)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]


class Section(BaseModel):
    """A part of the recipe: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
