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


class Regions:
    """Every label of a segmentation: the box around its voxels, and which of the box's voxels are the label's.

    Iterating gives them in the labels' order, as often as is wanted; of a label without a voxel, none of a box of one.

    Parameters
    ----------
    mask
        The segmentation.
    path
        File to be written, for messages.

    Raises
    ------
    ExportError
        Code ``format``: a voxel whose value no label declares. A format with names would drop it.
    """

    def __init__(self, mask: LabelVolume, path: Path | None = None) -> None:
        self._labels = mask.labels
        self._boxes: dict[int, tuple[Box, LabelMap]] = {}
        for array in mask.label_maps:
            self._boxes |= {value: (box, array) for value, box in _boxes(array)}
        if not self._boxes.keys() <= {label.value for label in mask.labels}:
            raise ExportError("the mask has voxels whose value no label declares", code="format", path=path)

    def __iter__(self) -> Iterator[tuple[Label, Box, Mask]]:
        nowhere: tuple[Box, LabelMap] = (slice(0, 1), slice(0, 1), slice(0, 1)), np.zeros((1, 1, 1), np.uint8)
        for label in self._labels:
            box, array = self._boxes.get(label.value, nowhere)
            yield label, box, array[box] == label.value


def _boxes(array: LabelMap) -> Iterator[tuple[int, Box]]:
    """Each value but 0 that occurs, and the box around its voxels."""
    # Voxels are looked at in C's order: of an array in Fortran's, that is ten times as slow.
    turned = array.flags.f_contiguous and not array.flags.c_contiguous
    found: list[Any] = ndimage.find_objects(array.T if turned else array)
    for value, box in enumerate(found, start=1):
        if box is not None:
            yield value, box[::-1] if turned else box


def check_declared(mask: LabelVolume, path: Path) -> None:
    """Refuse a mask that `Regions` refuses, for formats that are written without them."""
    Regions(mask, path)
