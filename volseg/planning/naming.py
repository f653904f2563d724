"""What a dataset says of itself: its name, and those of its channels and labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.datasets.cases import Case
from volseg.errors import UsageError
from volseg.files import read_text
from volseg.labels.masks import is_mask_folder, mask_files

#: Names of BraTS' cases, and what the values of their labels are: up to 2021, and since 2023 (the cavity since 2024).
_BRATS = (
    (re.compile(r"brats(20)?\d\d_", re.IGNORECASE), {1: "Necrotic core", 2: "Oedema", 4: "Enhancing tumour"}),
    (
        re.compile(r"BraTS-(GLI|SSA|MEN|MET)-"),
        {1: "Necrotic core", 2: "Oedema", 3: "Enhancing tumour", 4: "Resection cavity"},
    ),
)


@dataclass(frozen=True)
class Region:
    """A label of the network: one value of the training labels, or several where regions overlap.

    Attributes
    ----------
    value
        Value in the mask that the model paints.
    name
        Name for people.
    members
        Values in the training labels.
    """

    value: int
    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Naming:
    """What ``dataset.json`` says; empty where there is none, or where it doesn't.

    Attributes
    ----------
    name, description
        Name and description of the dataset.
    channels
        Names of the channels, in order.
    regions
        The labels.
    ignored
        Value of voxels that nobody judged, nnU-Net's label called ignore.
    """

    name: str
    description: str = ""
    channels: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    ignored: int | None = None

    @property
    def overlapping(self) -> bool:
        """Whether a voxel may belong to several labels."""
        return any(region.members != (region.value,) for region in self.regions)

    @property
    def values(self) -> set[int]:
        """Values of the training labels that have a name."""
        return {value for region in self.regions for value in region.members}


def read_naming(dataset: Path, cases: Sequence[Case]) -> Naming:
    """Names from a dataset's ``dataset.json``, in the layout of MSD or of nnU-Net; those of others are their files'.

    Parameters
    ----------
    dataset
        Folder or CSV, as `volseg.datasets.cases.load_dataset` takes it.
    cases
        Cases that it gave.

    Raises
    ------
    UsageError
        Labels that can't be understood.
    """
    path = dataset / "dataset.json"
    if not path.exists():
        name = dataset.resolve().name if dataset.is_dir() else dataset.stem
        return Naming(name, channels=cases[0].channels, regions=_masks(cases) or _tumour(cases))
    content: dict[str, Any] = json.loads(read_text(path))
    given = content.get("channel_names", content.get("modality")) or {}
    try:
        channels = tuple(str(given[key]) for key in sorted(given, key=int)) if isinstance(given, dict) else ()
        regions = _regions(content)
        ignored = content["labels"].get("ignore") if regions else None
        ignored = None if ignored is None else int(ignored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: labels or channels as neither MSD nor nnU-Net has them ({error})") from error
    # An absolute path: a dataset given as "." has a name too.
    name = str(content.get("name") or dataset.resolve().name)
    return Naming(name, str(content.get("description") or ""), channels, regions, ignored)


def _masks(cases: Sequence[Case]) -> tuple[Region, ...]:
    """The structures that any case has a mask of, in the order of the alphabet; none unless all labels are masks."""
    if not all(is_mask_folder(case.label) for case in cases):
        return ()
    names = sorted({name for case in cases for name in mask_files(case.label)})
    return tuple(Region(value, name, (value,)) for value, name in enumerate(names, start=1))


def _tumour(cases: Sequence[Case]) -> tuple[Region, ...]:
    """Labels of BraTS' gliomas and metastases, as they are and not as the overlapping regions that it scores.

    Its paediatric data sets number them in other ways from year to year, so theirs have no names here.
    """
    for pattern, table in _BRATS:
        if all(pattern.match(case.name) for case in cases):
            return tuple(Region(value, name, (value,)) for value, name in sorted(table.items()))
    return ()


def _regions(content: dict[str, Any]) -> tuple[Region, ...]:
    labels = content.get("labels") or {}
    if labels and all(isinstance(value, str) for value in labels.values()):  # MSD: {"1": "Anterior"}
        named = [(name, (int(value),)) for value, name in labels.items()]
    else:  # nnU-Net: {"Anterior": 1}, or {"whole tumour": [1, 2]}
        named = [(name, tuple(value) if isinstance(value, list) else (int(value),)) for name, value in labels.items()]
    named = [(name, values) for name, values in named if set(values) != {0} and name != "ignore"]
    if not any(len(values) > 1 for _, values in named):
        return tuple(sorted((Region(value, name, (value,)) for name, (value,) in named), key=lambda r: r.value))
    order = content["regions_class_order"]
    return tuple(Region(int(value), name, values) for (name, values), value in zip(named, order, strict=True))
