"""Which prediction belongs to which reference, and how both are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volseg.errors import InputError, UsageError
from volseg.files import read_text
from volseg.labels.canvas import any_colour
from volseg.labels.read import (
    is_label_map,
    load_label_map,
    load_labels,
    load_labels_as,
    on_grid,
)
from volseg.loaders.formats import ENDINGS
from volseg.results import MASKS, NIFTI
from volseg.results import case as results
from volseg.text import safe_name
from volseg.volume import Label, LabelVolume, Volume


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
        A sentence on why.
    code
        A key of `volseg.errors.CODES` where the case's masks are there but can't be compared; None where one is absent.
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
        ``<case>.nii.gz``; other formats of a mask, SEG and RTSTRUCT (``<case>.dcm``) go as well. A case name is
        compared as ``predict`` would write it; ``x_0000`` is also ``x``, where the other folder has only that.

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
    predictions, references = _without_number(predictions, references), _without_number(references, predictions)
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
    return path.is_file() or _mask_in(path) is not None


def _mask_in(folder: Path) -> Path | None:
    """The mask in the folder of a case that `volseg predict` wrote."""
    return next((path for path in (folder / name for name in MASKS) if path.is_file()), None)


def _is_mask(path: Path) -> bool:
    """Whether a file is a mask by its name, and a DICOM file by what it is."""
    name = path.name.lower()
    return path.is_file() and (name.endswith(ENDINGS) or (name.endswith(".dcm") and not is_label_map(path)))


def _case(mask: Path) -> str:
    """Case of a mask: its folder's name where `volseg predict` wrote it, else its own."""
    if mask.name in MASKS:
        return safe_name(mask.resolve().parent.name)
    return safe_name(re.sub(r"(\.seg|\.rtstruct)?(\.nii\.gz|\.[^.]+)$", "", mask.name, flags=re.IGNORECASE))


def _masks(path: Path) -> dict[str, Path]:
    """Masks by case name."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if single := path if path.is_file() else _mask_in(path):
        return {_case(single): single}
    masks: dict[str, Path] = {}
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        mask = _mask_in(entry) if entry.is_dir() else entry
        if mask is None or not _is_mask(mask):
            continue
        case = _case(mask)
        if case in masks:
            raise UsageError(f"{path}: {masks[case].relative_to(path)} and {mask.relative_to(path)} are of one case")
        masks[case] = mask
    if not masks:
        raise InputError(f"no mask: expected <case>/{NIFTI} or <case>.nii.gz", code="no-image", path=path)
    return masks


def _without_number(masks: dict[str, Path], others: Mapping[str, Path]) -> dict[str, Path]:
    """Masks by the names that the others have: ``x`` for the ``x_0000`` of a scan that nnU-Net's users call so."""
    return {
        case[:-5] if case.endswith("_0000") and case[:-5] in others and case[:-5] not in masks else case: mask
        for case, mask in masks.items()
    }


def _why_absent(folder: Path) -> str:
    """What the result of a case without a mask says."""
    result = results.known(folder)
    if result is not None and result.status in ("refused", "failed", "skipped"):
        return f" ({result.status}: {result.reason})"
    return f" ({folder.name}/ is there without {NIFTI})" if folder.is_dir() else ""


def _json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that is there for people's convenience; nothing where it is absent or damaged."""
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def names_beside_prediction(mask: Path) -> dict[int, str]:
    """Label names from the ``result.json`` beside a case's mask; empty where it is absent."""
    result = results.known(mask.parent) if mask.name in MASKS else None
    return {} if result is None else {label.value: label.name for label in result.labels}


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


def read_pair(pair: Pair) -> tuple[LabelVolume, LabelVolume, tuple[str, ...]]:
    """Read both masks of a case, with the names of their labels as far as they are known.

    A SEG or RTSTRUCT is put onto the grid of the other mask, and its labels get the values that their names have there.

    Returns
    -------
    predicted, reference, notes
        The last is what is unusual about the labels.

    Raises
    ------
    InputError
        One can't be read, or is no mask. Code ``unsupported``: both are SEG or RTSTRUCT, and neither has a grid.
    GeometryError
        One isn't 3D, has no usable affine, or is a SEG or RTSTRUCT that isn't on the grid of the other.
    """
    predicted_names, reference_names = names_beside_prediction(pair.predicted), names_beside_reference(pair.reference)
    if not is_label_map(pair.reference):
        if not is_label_map(pair.predicted):
            raise InputError(
                "the prediction and its reference are both SEG or RTSTRUCT, and neither says on which grid to compare"
                " them; give one as NIfTI",
                code="unsupported",
                path=pair.predicted,
            )
        predicted = read_mask(pair.predicted, predicted_names)
        reference = _on_grid_of(predicted, pair.reference)
        return predicted, reference, reference.source.notes
    reference = read_mask(pair.reference, reference_names)
    if is_label_map(pair.predicted):
        predicted = read_mask(pair.predicted, predicted_names)
        image = Volume(predicted.array, predicted.geometry, replace(predicted.source, path=None))
        wrong = (
            "a mask is evaluated on the grid of the scan it was made for, and the prediction lies on another grid than"
            " its reference"
        )
        placed = on_grid(reference, image, wrong, pair.predicted)
        told = [*(f"prediction: {note}" for note in predicted.source.notes)]
        told += [f"reference: {note}" for note in placed.source.notes]
        return predicted, placed, tuple(f"{pair.case}: {note}" for note in told)
    predicted = _on_grid_of(reference, pair.predicted)
    return predicted, reference, predicted.source.notes


def read_mask(path: Path, names: Mapping[int, str]) -> LabelVolume:
    """Read a mask on its own grid; `names` are those of its labels, by value; without them, its own."""
    mask = load_label_map(path)
    names = names or {label.value: label.name for label in mask.labels if label.name != f"label {label.value}"}
    labels = tuple(Label(value=value, name=names[value], colour=any_colour(value)) for value in sorted(names))
    return replace(mask, labels=labels)


def _on_grid_of(mask: LabelVolume, path: Path) -> LabelVolume:
    image = Volume(mask.array, mask.geometry, mask.source)
    return load_labels_as(path, image, mask.labels) if mask.labels else load_labels(path, image)
