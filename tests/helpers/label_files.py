"""Images and masks for the tests of labels: no flip or permutation of their axes looks like another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from tests.helpers.scans import along_normal, scan_from
from volseg.volume import LabelVolume, Volume

Array = npt.NDArray[Any]


def image_of(paths: Sequence[Path]) -> Volume:
    """The scan of a series, its grid worked out with pydicom alone."""
    geometry, source = scan_from(paths)
    return Volume(np.zeros(geometry.shape, np.int16), geometry, source)


def headers_of(paths: Sequence[Path]) -> list[Dataset]:
    """Headers of a series, ascending as the slices of `image_of`."""
    return sorted((pydicom.dcmread(path) for path in paths), key=along_normal)


def mask_of(shape: tuple[int, int, int], values: Sequence[int] = (1, 2)) -> Array:
    """Mask [i, j, k] of two labels that touch, without symmetry, its second slice empty."""
    array = np.zeros(shape, np.uint8)
    array[0:3, 1:4, 0] = values[0]
    array[1:3, 2:6, 2:] = values[0]
    array[3:, 4:6, 2] = values[1]
    array[0, 0, -1] = values[1]
    array[-1, -1, 0] = values[1]
    return array


def notes_of(labels: LabelVolume) -> str:
    return " | ".join(labels.source.notes)
