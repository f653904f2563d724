"""volseg: segment 3D medical scans. DICOM or NIfTI in, masks on the scan's own grid out.

Public names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from volseg.errors import (
        ExportError,
        GeometryError,
        InputError,
        ModelError,
        RecipeError,
        RefusalError,
        TrainingError,
        UsageError,
        VolsegError,
    )
    from volseg.geometry import Geometry
    from volseg.inference.predictor import Model, load_model
    from volseg.loaders import load
    from volseg.volume import Label, LabelVolume, Volume

_HOMES = {
    "ExportError": "volseg.errors",
    "Geometry": "volseg.geometry",
    "GeometryError": "volseg.errors",
    "InputError": "volseg.errors",
    "Label": "volseg.volume",
    "LabelVolume": "volseg.volume",
    "Model": "volseg.inference.predictor",
    "ModelError": "volseg.errors",
    "RecipeError": "volseg.errors",
    "RefusalError": "volseg.errors",
    "TrainingError": "volseg.errors",
    "UsageError": "volseg.errors",
    "Volume": "volseg.volume",
    "VolsegError": "volseg.errors",
    "load": "volseg.loaders",
    "load_model": "volseg.inference.predictor",
}

__all__ = [
    "ExportError",
    "Geometry",
    "GeometryError",
    "InputError",
    "Label",
    "LabelVolume",
    "Model",
    "ModelError",
    "RecipeError",
    "RefusalError",
    "TrainingError",
    "UsageError",
    "VolsegError",
    "Volume",
    "__version__",
    "load",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'volseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
