"""Trained models: the model folder, and those that come with volseg."""

from __future__ import annotations

from pathlib import Path

from volseg.errors import ModelError

_BUNDLED = Path(__file__).parent / "bundled"


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with volseg."""
    return tuple(sorted(path.parent.name for path in _BUNDLED.glob("*/model.json")))


def model_path(name_or_folder: str | Path) -> Path:
    """Folder of a model: a bundled name, or the folder itself.

    Raises
    ------
    ModelError
        Neither; it lists the bundled names.
    """
    if str(name_or_folder) in bundled_models():
        return _BUNDLED / str(name_or_folder)
    folder = Path(name_or_folder)
    if not folder.exists():
        raise ModelError(
            f"{name_or_folder}: neither a model folder nor a bundled model; bundled: {', '.join(bundled_models())}"
        )
    return folder
