"""Which prediction belongs to which reference, and how both are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.errors import GeometryError, InputError, UsageError
from volseg.loaders import load
from volseg.loaders.candidate import safe_name
from volseg.loaders.nifti import is_nifti_name, stem
from volseg.volume import Label, LabelVolume, Voxels

#: The mask in the folder of a case that `volseg predict` wrote.
MASK_NAME = "mask.nii.gz"
#: Colour of a label in a mask that was read to be counted, not to be shown.
_GREY = (128, 128, 128)
_HIGHEST = np.iinfo(np.uint16).max


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two masks of one case."""

    case: str
    predicted: Path
    reference: Path


@dataclass(frozen=True, kw_only=True)
class NotEvaluated:
    """A case without scores.

    Attributes
    ----------
    case
        Its name.
    reason
        A sentence.
    code
        A key of `volseg.errors.CODES` where its masks are there but can't be compared; None where one is absent.
    """

    case: str
    reason: str
    code: str | None = None


def find_pairs(predicted: Path, reference: Path) -> tuple[list[Pair], list[NotEvaluated]]:
    """Pair predictions with references by case name; two single masks are a pair whatever they are called.

    Parameters
    ----------
    predicted, reference
        A mask, the folder of one case that ``volseg predict`` wrote, or a folder of ``<case>/mask.nii.gz`` or
        ``<case>.nii.gz`` (``.nii``). A case name is compared as ``predict`` would write it.

    Returns
    -------
    pairs, not_evaluated
        By case name; the second are those without a partner.

    Raises
    ------
    UsageError
        A path doesn't exist, or two masks in a folder are of one case.
    InputError
        Code ``no-image``: a folder without a mask.
    """
    predictions, references = _masks(predicted), _masks(reference)
    if _is_single(predicted) and _is_single(reference):
        (case, mask), (other,) = next(iter(predictions.items())), references.values()
        return [Pair(case=case, predicted=mask, reference=other)], []
    pairs, alone = [], []
    for case in sorted(predictions.keys() | references.keys()):
        if case not in predictions:
            alone.append(NotEvaluated(case=case, reason=f"no prediction in {predicted}{_why_absent(predicted / case)}"))
        elif case not in references:
            alone.append(NotEvaluated(case=case, reason=f"no reference in {reference}"))
        else:
            pairs.append(Pair(case=case, predicted=predictions[case], reference=references[case]))
    return pairs, alone


def _is_single(path: Path) -> bool:
    return path.is_file() or (path / MASK_NAME).is_file()


def _masks(path: Path) -> dict[str, Path]:
    """Masks by case name."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if (path / MASK_NAME).is_file():
        path = path / MASK_NAME
    if path.name == MASK_NAME:
        return {safe_name(path.resolve().parent.name): path}
    if path.is_file():
        return {safe_name(stem(path) if is_nifti_name(path) else path.stem): path}
    masks: dict[str, Path] = {}
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        mask = entry / MASK_NAME if entry.is_dir() else entry
        if not (mask.is_file() and is_nifti_name(mask)):
            continue
        case = safe_name(entry.name if entry.is_dir() else stem(entry))
        if case in masks:
            raise UsageError(f"{path}: {masks[case].relative_to(path)} and {mask.relative_to(path)} are of one case")
        masks[case] = mask
    if not masks:
        raise InputError(f"no mask: expected <case>/{MASK_NAME} or <case>.nii.gz", code="no-image", path=path)
    return masks


def _why_absent(folder: Path) -> str:
    """What the result of a case without a mask says."""
    result = _json(folder / "result.json")
    if result.get("status") in ("refused", "failed", "skipped"):
        return f" ({result['status']}: {result.get('reason')})"
    return f" ({folder.name}/ is there without {MASK_NAME})" if folder.is_dir() else ""


def _json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that is there for people's convenience; nothing where it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def names_beside_prediction(mask: Path) -> dict[int, str]:
    """Label names from the ``result.json`` beside a case's mask; empty where it is absent."""
    labels = _json(mask.parent / "result.json").get("labels") if mask.name == MASK_NAME else None
    try:
        return {int(label["value"]): str(label["name"]) for label in labels or ()}
    except (KeyError, TypeError, ValueError):
        return {}


def names_beside_reference(mask: Path) -> dict[int, str]:
    """Label names from the ``dataset.json`` (MSD, nnU-Net) in the mask's folder or the one above, or as a prediction's.

    MSD maps value to name, nnU-Net name to value; nnU-Net's regions, of several values, aren't labels of a mask.
    """
    for folder in (mask.parent, mask.parent.parent):
        labels = _json(folder / "dataset.json").get("labels")
        if isinstance(labels, dict):
            pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels.items()]
            return {int(value): str(name) for value, name in pairs if str(value).isdigit() and int(value) > 0}
    return names_beside_prediction(mask)


def read_mask(path: Path, names: Mapping[int, str]) -> LabelVolume:
    """Read a mask.

    Parameters
    ----------
    path
        NIfTI file. Voxels may be stored as floating-point numbers if their values are whole.
    names
        Name of each label, by value.

    Raises
    ------
    InputError
        It can't be read, or is no mask: a value is negative, not whole, or above 65535 (code ``unsupported``).
    GeometryError
        It isn't 3D, or has no usable affine.
    """
    volume = load(path)
    if volume.channels != 1:
        raise GeometryError(f"a mask has one value a voxel, this holds {volume.channels}", code="not-3d", path=path)
    labels = tuple(Label(value=value, name=names[value], colour=_GREY) for value in sorted(names))
    return LabelVolume(_labels_of(volume.array, path), volume.geometry, labels, volume.source)


def _labels_of(array: Voxels, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    if np.issubdtype(array.dtype, np.floating) and (off := array[array != np.rint(array)]).size:
        raise InputError(
            f"not a mask: {off.size} voxels aren't whole numbers, the first is {float(off[0]):.9g};"
            " labels are integers, resampled with nearest neighbour",
            code="unsupported",
            path=path,
        )
    low, high = array.min(), array.max()
    if low < 0 or high > _HIGHEST:
        raise InputError(
            f"not a mask: values from {low:g} to {high:g}; labels are 0 to {_HIGHEST}", code="unsupported", path=path
        )
    return array.astype(np.uint16)
