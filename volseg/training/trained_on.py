"""What a model was trained on: written at the end of each fold, and merged where several are packed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

import volseg
from volseg.config import SynthesisConfig, validation_problem
from volseg.errors import ModelError
from volseg.models.folder import Span, TrainedOn
from volseg.training.dataset import TrainingCase
from volseg.volume import LabelVolume

TRAINED_ON = "trained_on.json"


def _spans(rows: Sequence[Sequence[float]]) -> list[Span]:
    table = np.array(rows, dtype=np.float64)
    return [(round(float(low), 4), round(float(high), 4)) for low, high in zip(table.min(0), table.max(0), strict=True)]


def _volumes(references: Sequence[LabelVolume]) -> dict[str, Span]:
    rows = [[count * mask.geometry.voxel_volume_ml for count in mask.voxel_counts().values()] for mask in references]
    return dict(zip([label.name for label in references[0].labels], _spans(rows), strict=True))


def describe_training(
    cases: Sequence[TrainingCase], steps: int, seconds: float, synthesis: SynthesisConfig | None = None
) -> TrainedOn:
    """What goes into the model's manifest about its training cases."""
    turned = [case.prepared.grid.turned(case.prepared.axes) for case in cases]
    spacing, extent = _spans([g.spacing_mm for g in turned]), _spans([g.extent_mm for g in turned])
    if synthesis is not None:
        # What the network saw is what the images stand for, not what the maps have.
        spacing, extent = [synthesis.scan_spacing_mm] * 3, [synthesis.scan_extent_mm] * 3
    percentiles = np.median([case.intensity for case in cases], axis=0)
    return TrainedOn(
        cases=tuple(sorted(case.name for case in cases)),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        extent_mm=(extent[0], extent[1], extent[2]),
        intensity=tuple((float(low), float(high)) for low, high in percentiles),
        volumes_ml=_volumes([case.reference for case in cases]),
        steps=steps,
        seconds=seconds,
        threads=torch.get_num_threads(),
        volseg=volseg.__version__,
    )


def read_json(path: Path) -> Any:
    """Content of a file of a run; ModelError where it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read; is its folder a finished run of volseg train? ({error})") from error


def read_trained_on(path: Path) -> TrainedOn:
    """What a fold's file holds; ModelError where it can't be used."""
    try:
        return TrainedOn.model_validate(read_json(path))
    except ValidationError as error:
        raise ModelError(f"{path}: {validation_problem(error)}") from error


def merge(parts: Sequence[TrainedOn]) -> TrainedOn:
    """One description of several folds' training cases."""

    def widest(spans: Sequence[Span]) -> Span:
        return min(low for low, _ in spans), max(high for _, high in spans)

    first = parts[0]
    volumes = [part.volumes_ml for part in parts if part.volumes_ml is not None]
    known = len(volumes) == len(parts)  # not in runs of earlier versions
    by_axis = {
        name: tuple(widest(spans) for spans in zip(*(getattr(part, name) for part in parts), strict=True))
        for name in ("spacing_mm", "extent_mm", "intensity")
    }
    return first.model_copy(
        update={
            **by_axis,
            "volumes_ml": {name: widest([each[name] for each in volumes]) for name in volumes[0]} if known else None,
            "cases": tuple(sorted({name for part in parts for name in part.cases})),
            "steps": max(part.steps or 0 for part in parts),
            "seconds": round(sum(part.seconds or 0.0 for part in parts), 1),
        }
    )
