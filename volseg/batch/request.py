"""`Request`: what a batch is to do, as data that goes through JSON both ways."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, ValidationError, field_validator

from volseg.config import validation_problem
from volseg.errors import UsageError
from volseg.export.outputs import check_formats
from volseg.inference import Options
from volseg.results.settings import Settings, option

#: Options whose names differ from those in `Settings`.
_RENAMED = {"mirroring": "tta"}


class Request(Settings):
    """What ``volseg predict`` is asked for.

    What a case's result depends on of these four is known by its content: the hash of the scan, and that of the model.
    """

    model_config = ConfigDict(extra="forbid")

    input: Path = option(..., "File or folder to segment.", affects_result=False)
    output: Path = option(..., "Folder for the results, a folder for each case.", affects_result=False)
    model: str = option(..., "Bundled name of a model, or its folder.", affects_result=False)
    series: tuple[str, ...] = option(
        (),
        "Series to segment, whether they fit or not, by UID, number or case name; none: all that fit.",
        affects_result=False,
    )

    @field_validator("formats")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        check_formats(names)
        return names

    @field_validator("tile_step")
    @classmethod
    def _share(cls, step: float | None) -> float | None:
        if step is not None and not 0 < step <= 1:
            raise ValueError("a share of the window is above 0, and 1 at most")
        return step

    @classmethod
    def of(cls, **given: Any) -> Self:
        """A request with these fields.

        Raises
        ------
        UsageError
            A field that there isn't, or a value that it can't have.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise UsageError(f"request: {validation_problem(error)}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """A request from what `to_json` made of it.

        Raises
        ------
        UsageError
            As `of`, or it isn't JSON.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise UsageError(f"request: {validation_problem(error)}") from error

    def to_json(self) -> str:
        """The request as a JSON document."""
        return self.model_dump_json()

    def options(self) -> Options:
        """How the model is to be run: of these fields, those that it takes."""
        named = {field.name: _RENAMED.get(field.name, field.name) for field in fields(Options)}
        given = {name: getattr(self, own) for name, own in named.items() if own in Settings.model_fields}
        return Options(**{**given, "labels": self.labels or ()})
