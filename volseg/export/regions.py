"""A segmentation label by label: the one place that says which voxels a label has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.errors import ExportError
from volseg.volume import Label, LabelMap, LabelVolume

Box = tuple[slice, slice, slice]
Mask = npt.NDArray[np.bool_]


def regions(mask: LabelVolume) -> Iterator[tuple[Label, Box, Mask]]:
    """Each label, the box around its voxels, and which of the box's voxels are the label's; none may be."""
    boxes: dict[int, Any] = {}
    for array in mask.label_maps:
        boxes |= {value: (box, array) for value, box in _boxes(array) if box is not None}
    nowhere = (slice(0, 1), slice(0, 1), slice(0, 1)), np.zeros((1, 1, 1), np.uint8)
    for label in mask.labels:
        box, array = boxes.get(label.value, nowhere)
        yield label, box, array[box] == label.value


def _boxes(array: LabelMap) -> Iterator[tuple[int, Box | None]]:
    """The box of each value from 1."""
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        # Voxels are looked at in C's order: of an array in Fortran's, that is ten times as slow.
        turned = ndimage.find_objects(array.T)
        found = [None if box is None else box[::-1] for box in turned]
    else:
        found = ndimage.find_objects(array)
    yield from enumerate(found, start=1)


def check_declared(mask: LabelVolume, path: Path) -> None:
    """Refuse a mask with a voxel whose value no label declares: a format with names would drop it.

    Raises
    ------
    ExportError
        Code ``format``.
    """
    values = [label.value for label in mask.labels]
    for array in (mask.array, *mask.layers):
        known = np.zeros(max([int(array.max()), *values]) + 1, np.bool_)
        known[[0, *values]] = True
        if not known[array].all():
            raise ExportError("the mask has voxels whose value no label declares", code="format", path=path)
