"""Datasets that ``dataset.json`` describes: those of the Medical Segmentation Decathlon and of nnU-Net.

nnU-Net's first version lists its cases as the Decathlon does, without the numbers of their channels: ``x.nii.gz`` for
the files ``x_0000.nii.gz``, ``x_0001.nii.gz``. Its second lists nothing, or each case with its files in ``dataset``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volseg.datasets.case import Case
from volseg.errors import UsageError
from volseg.files import read_text
from volseg.loaders.formats import format_of, stem

#: The file that describes a dataset.
DESCRIPTION = "dataset.json"
#: nnU-Net's mark of the first channel.
_FIRST = "_0000"


def described(folder: Path) -> list[Case]:
    """Labelled cases of a folder with ``dataset.json``.

    Raises
    ------
    UsageError
        The description is no JSON, or that of neither layout.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a JSON file: {error}") from error
    try:
        if isinstance(content.get("training"), list):
            return _listed(folder, content)
        return _named(folder, content["dataset"]) if content.get("dataset") else _found(folder, content)
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: neither in the MSD nor in the nnU-Net layout ({error})") from error


def given(folder: Path, text: str) -> Path:
    r"""Path that a description gives, relative to its folder; ``\`` parts folders where a name doesn't hold it."""
    path = folder / text
    return path if path.exists() or "\\" not in text else folder / text.replace("\\", "/")


def stem_of(path: Path) -> str:
    """File name without its ending; a folder's name as it is."""
    if path.is_dir():
        return path.name
    return stem(path) if format_of(path) else path.stem


def _listed(folder: Path, content: Mapping[str, Any]) -> list[Case]:
    """Cases of a list of images and labels."""
    cases = []
    for entry in content["training"]:
        image, label = given(folder, entry["image"]), given(folder, entry["label"])
        images = _channels(image, _count(content))
        name = stem_of(image)
        # The number of a channel is no part of a name that the label has without it.
        cases.append(Case(stem_of(label) if name == stem_of(label) + _FIRST else name, images, label))
    return cases


def _channels(image: Path, count: int) -> tuple[Path, ...]:
    """The file of each channel where nnU-Net's stand for or beside the one that is listed, else this one."""
    name = stem_of(image)
    case = name.removesuffix(_FIRST) if image.exists() else name
    ending = image.name[len(name) :]
    files = tuple(image.with_name(f"{case}_{channel:04d}{ending}") for channel in range(count))
    numbered = case != name or not image.exists()
    return files if numbered and files and files[0].exists() else (image,)


def _named(folder: Path, cases: Mapping[str, Any]) -> list[Case]:
    """Cases that nnU-Net's second version lists: ``{"x": {"images": ["x_0000.nii.gz"], "label": "x.nii.gz"}}``."""
    return [
        Case(name, tuple(given(folder, image) for image in files["images"]), given(folder, files["label"]))
        for name, files in cases.items()
    ]


def _found(folder: Path, content: Mapping[str, Any]) -> list[Case]:
    """Cases by the names of the files in ``labelsTr``; hidden ones, such as a Mac's ``._x.nii.gz``, are none."""
    ending = re.sub(r"^(?!\.)", ".", str(content.get("file_ending", ".nii.gz")))
    cases = []
    for label in sorted((folder / "labelsTr").glob(f"*{ending}")):
        if label.name.startswith("."):
            continue
        name = label.name.removesuffix(ending)
        images = tuple(folder / "imagesTr" / f"{name}_{channel:04d}{ending}" for channel in range(_count(content)))
        cases.append(Case(name, images, label))
    return cases


def _count(content: Mapping[str, Any]) -> int:
    """Number of channels that the description names."""
    return len(content.get("channel_names", content.get("modality", {"0": ""})))
