"""`Settings`: every option that a case can be segmented with, and whether what comes out depends on it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def option(default: Any, description: str, *, affects_result: bool) -> Any:
    """A field that holds an option.

    Parameters
    ----------
    default
        Value where nothing was asked for.
    description
        A sentence for people.
    affects_result
        Whether a case must be done again where the option is another than the last time.
    """
    return Field(default, description=description, json_schema_extra={"affects_result": affects_result})


class Settings(BaseModel):
    """How a case was asked to be segmented and written: ``options`` in ``result.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    formats: tuple[str, ...] | None = option(
        None,
        "Formats of the mask, by their names in `volseg.export.outputs`; null: those that the source has by default.",
        affects_result=True,
    )
    tta: bool | None = option(
        None, "Whether mirrored passes are averaged; null: as the model says.", affects_result=True
    )
    tile_step: float | None = option(
        None,
        "Largest step from window to window, as a share of the window; null: as the model says.",
        affects_result=True,
    )
    coarse_to_fine: bool = option(
        False, "Whether a few windows find where labels are, and only that part is looked at.", affects_result=True
    )
    folds: tuple[str, ...] = option((), "Names of the folds to average; none asks for all.", affects_result=True)
    engine: Literal["auto", "torch", "openvino"] = option("auto", "Engine that runs the network.", affects_result=True)
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "Precision of the network.", affects_result=True)
    device: str = option("cpu", "Device that the network runs on: cpu, cuda or mps.", affects_result=True)
    labels: tuple[str, ...] | None = option(
        None, "Labels to find, by name, or value where they are asked for; null: all.", affects_result=True
    )
    probabilities: bool = option(False, "Whether to write a map of each label's probability.", affects_result=True)
    entropy: bool = option(False, "Whether to write a map of the probabilities' entropy.", affects_result=True)
    memory: int | None = option(
        None, "Bytes that the process may hold; null: as many as the machine has.", affects_result=False
    )
    repair_uids: bool = option(
        False, "Whether to write a copy of a series whose UIDs are blank, and refer to that.", affects_result=True
    )
    resample_tilt: bool = option(
        False, "Whether to put a series with a gantry tilt onto straight slices for the network.", affects_result=True
    )
    preview: bool = option(True, "Whether to draw a picture of the mask over the scan.", affects_result=True)

    def key(self) -> dict[str, Any]:
        """The options that the result depends on: two runs with equal ones make the same files."""
        fields = Settings.model_fields
        affecting = {name for name, field in fields.items() if _extra(field.json_schema_extra)["affects_result"]}
        return self.model_dump(mode="json", include=affecting)


def _extra(found: Any) -> dict[str, Any]:
    return dict(found)
