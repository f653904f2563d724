"""`CaseResult`: what ``result.json`` holds, written whole or not at all, and read with what older versions left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from volseg.errors import InputError
from volseg.files import write_atomically
from volseg.geometry import Geometry
from volseg.results import RESULT
from volseg.results.settings import Settings

#: ``skipped`` is a series that doesn't fit the model in a study where others may: no failure. ``empty`` is a mask
#: without a label.
Status = Literal["done", "empty", "skipped", "refused", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SourceResult(_Part):
    """What was segmented."""

    kind: str = Field("", description="Format of the scan: dicom, nifti, nrrd or metaimage.")
    path: str = Field("", description="File or folder of the series, relative to the input.")
    series_uid: str | None = None
    sha256: str | None = Field(None, description="Hash of what the files hold; null where they weren't read.")


class GeometryResult(_Part):
    """The scan's own grid."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...] = Field(
        description="Four rows that map (i, j, k) to RAS+ millimetres.", min_length=4, max_length=4
    )
    orientation: str = Field(description="Directions in which i, j and k grow, such as LPS.")

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """The grid of a scan."""
        return cls.model_validate(
            {
                "shape": geometry.shape,
                "spacing_mm": geometry.spacing_mm,
                "affine": geometry.affine.tolist(),
                "orientation": geometry.orientation,
            }
        )


class ModelIdentity(_Part):
    """The model, by what it is called and by its hash."""

    name: str = ""
    version: str = ""
    sha256: str = ""


class LabelResult(_Part):
    """One label of the mask."""

    value: int
    name: str
    volume_ml: float = 0.0
    voxels: int = 0
    confidence: float | None = Field(None, description="Mean probability of the label where it wins.")
    agreement: float | None = Field(None, description="Dice between folds or mirrored passes.")
    touches_border: tuple[str, ...] = Field(
        (), description="Sides of the scan that it touches: L or R, P or A, I or S."
    )


class CaseResult(_Part):
    """What became of a case."""

    case: str
    status: Status
    code: str | None = Field(None, description="Word for the reason, a key of volseg.errors.CODES.")
    reason: str | None = Field(None, description="A sentence on why.")
    source: SourceResult = SourceResult()
    geometry: GeometryResult | None = None
    volseg: str = Field("", description="Version that wrote this.")
    model: ModelIdentity = ModelIdentity()
    options: Settings = Settings()
    engine: str | None = Field(None, description="Engine that ran the network; null: it didn't run.")
    precision: str | None = None
    threads: int = 0
    windows: int = Field(0, description="Windows that the network saw, mirrored passes not counted.")
    tile_step: float | None = None
    seconds: dict[str, float] = Field({}, description="Wall time of each stage.")
    peak_memory_mb: float | None = Field(
        None,
        description="Largest memory that the process had held by then, in MB; null where the system doesn't say.",
    )
    labels: tuple[LabelResult, ...] = ()
    flags: tuple[str, ...] = Field(
        (), description="Notes on what is unusual: a leading word for the kind, then a sentence."
    )
    files: dict[str, str] = Field({}, description="SHA-256 of every file that was written, by its name.")
    reused: SkipJsonSchema[bool] = Field(
        False, exclude=True, description="Whether an earlier run's result still held; no file says so."
    )

    def key(self) -> tuple[Any, ...]:
        """What makes two runs of a case the same: the input, volseg, the model, and the options that matter."""
        return self.source.sha256, self.volseg, self.model, self.options.key()


def write(folder: Path, result: CaseResult) -> None:
    """Write ``result.json`` into a case's folder, which is made where it is absent: whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(result.model_dump(mode="json"), indent=1, allow_nan=False)
    write_atomically(folder / RESULT, f"{content}\n".encode())


def read(folder: Path) -> CaseResult:
    """Read the ``result.json`` of a case's folder.

    What an older version didn't write yet gets its default; what only a newer one knows is passed over.

    Raises
    ------
    InputError
        Code ``unreadable``: there is none, or what it holds isn't a result, by the version that it names.
    """
    path = folder / RESULT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no result can be read: {error.strerror}", code="unreadable", path=path) from error
    except ValueError as error:
        raise InputError("isn't a result of volseg: not JSON", code="unreadable", path=path) from error
    try:
        return CaseResult.model_validate(content)
    except ValidationError as error:
        raise InputError(_why(content, error), code="unreadable", path=path) from error


def _why(content: Any, error: ValidationError) -> str:
    version = content.get("volseg") if isinstance(content, dict) else None
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"isn't a result that this version reads (volseg {version or 'unknown'}): {where}: {first['msg']}"


def known(folder: Path) -> CaseResult | None:
    """The result of a case's folder; None where there is none that can be read."""
    try:
        return read(folder)
    except InputError:
        return None


def exit_code(statuses: Iterable[Status]) -> int:
    """0: all done, empty or skipped, and at least one done or empty. 1: anything else."""
    found = set(statuses)
    return int(bool(found & {"refused", "failed"}) or not found & {"done", "empty"})
