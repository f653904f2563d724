"""What a dataset says of itself: its name, and those of its channels and labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import UsageError


@dataclass(frozen=True)
class Region:
    """A label of the network: one value of the training labels, or several where regions overlap.

    Attributes
    ----------
    value
        In the mask that the model paints.
    name
        For people.
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
        Of the dataset.
    channels
        Names, in order.
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


def read_naming(dataset: Path) -> Naming:
    """Names from a dataset's ``dataset.json``, in the layout of MSD or of nnU-Net; those of a CSV are the file's.

    Raises
    ------
    UsageError
        Labels that can't be understood.
    """
    if not dataset.is_dir():
        return Naming(dataset.stem)
    path = dataset / "dataset.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
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
