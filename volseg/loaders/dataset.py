"""Labelled datasets: a folder in the MSD or the nnU-Net layout, or a CSV of paths."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import UsageError

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Case:
    """One labelled case.

    Attributes
    ----------
    name
        Unique in its dataset.
    images
        One path a channel, or one path of a file that holds all channels. A DICOM series is a folder.
    label
        Path of the label map, SEG or RTSTRUCT, or of the folder that holds it.
    patient
        Whose scan it is, where the dataset says so: all scans of a patient are in one fold.
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    patient: str | None = None


def _checked(cases: list[Case], where: Path) -> tuple[Case, ...]:
    if not cases:
        raise UsageError(f"{where}: the dataset names no labelled case")
    names = [case.name for case in cases]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where}: several cases have one name: {', '.join(doubled[:5])}")
    absent = [path for case in cases for path in (*case.images, case.label) if not path.exists()]
    if absent:
        raise UsageError(f"{where}: {len(absent)} files of the dataset don't exist, the first is {absent[0]}")
    return tuple(sorted(cases, key=lambda case: case.name))


def _stem(path: Path) -> str:
    for ending in _ENDINGS:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.name if path.is_dir() else path.stem


def _msd(folder: Path, content: dict[str, Any]) -> list[Case]:
    pairs = [(folder / entry["image"], folder / entry["label"]) for entry in content["training"]]
    return [Case(_stem(image), (image,), label) for image, label in pairs]


def _nnunet(folder: Path, content: dict[str, Any]) -> list[Case]:
    ending = str(content.get("file_ending", ".nii.gz"))
    channels = len(content.get("channel_names", content.get("modality", {"0": ""})))
    cases = []
    for label in sorted((folder / "labelsTr").glob(f"*{ending}")):
        name = label.name.removesuffix(ending)
        images = tuple(folder / "imagesTr" / f"{name}_{channel:04d}{ending}" for channel in range(channels))
        cases.append(Case(name, images, label))
    return cases


def _csv(path: Path) -> list[Case]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8: {error}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    # By number: as text, image_10 would come before image_2.
    images = sorted(
        (name for name in columns if re.fullmatch(r"image(_?\d+)?", name)),
        key=lambda name: int(re.sub(r"\D", "", name) or 0),
    )
    if not images or "label" not in columns:
        raise UsageError(
            f"{path}: columns are {', '.join(columns) or 'absent'}; expected image (or image_0, image_1, ...) and"
            " label, case where file names aren't unique, and patient where some have several scans"
        )
    cases = []
    for row in rows:
        if None in row or not all(row[name] for name in (*images, "label")):
            raise UsageError(f"{path}: line {rows.line_num}: expected {', '.join(columns)}, each filled in")
        paths = tuple(path.parent / row[name] for name in images)
        name = row.get("case") or _stem(paths[0])
        cases.append(Case(name, paths, path.parent / row["label"], row.get("patient") or None))
    return cases


def load_dataset(path: Path) -> tuple[Case, ...]:
    """List the labelled cases of a dataset, sorted by name.

    Parameters
    ----------
    path
        Folder with ``dataset.json``, in the layout of the Medical Segmentation Decathlon (it lists the files) or of
        nnU-Net (``imagesTr/x_0000.nii.gz``, ``labelsTr/x.nii.gz``); or a CSV with the columns ``image`` (or
        ``image_0``, ``image_1``, ...), ``label`` and, if wanted, ``case`` and ``patient`` (all scans of a patient are
        in one fold), its paths relative to itself. Its images may be folders of a DICOM series, its labels SEG or
        RTSTRUCT files or folders of one.

    Raises
    ------
    UsageError
        No such layout, files that don't exist, or two cases of one name.
    """
    if path.suffix.lower() == ".csv" and path.is_file():
        return _checked(_csv(path), path)
    description = path / "dataset.json"
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path}: no dataset: expected a folder with dataset.json, or a CSV file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{description}: not a JSON file: {error}") from error
    listed = isinstance(content, dict) and isinstance(content.get("training"), list)
    try:
        cases = _msd(path, content) if listed else _nnunet(path, content)
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{description}: neither in the MSD nor in the nnU-Net layout ({error})") from error
    return _checked(cases, description)
