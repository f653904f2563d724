"""What is decided of a scan: labels, or regions that may overlap, from the order of rows to the scan's own grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volseg.inference.decide import Labels, Packed
from volseg.inference.layout import Layout
from volseg.preprocess import Prepared
from volseg.resample import put_back
from volseg.volume import LabelMap, layered


class Sheet:
    """Arrays on the scan's grid, which are written in the order of rows, on the grid that is decided on.

    Parameters
    ----------
    prepared, layout
        The scan, and its way through the network.
    count, dtype
        Number of arrays, and their type.

    Attributes
    ----------
    arrays
        Array (count, i, j, k).
    rows
        View (count, R, H, W) of them where they are decided.
    """

    def __init__(self, prepared: Prepared, layout: Layout, count: int, dtype: npt.DTypeLike) -> None:
        self.arrays: Labels = np.zeros((count, *prepared.grid.shape), dtype)
        self._turned = prepared.axes.apply(self.arrays)
        apart = prepared.zoomed
        self._decided = self._turned if apart is None else np.zeros((count, *apart), dtype)
        seen = self._decided[(slice(None), *prepared.box.slices)]
        self.rows = seen.transpose(0, *(axis + 1 for axis in layout.turned))

    def finish(self) -> None:
        """All is written: put it on the scan's grid, where it was decided on another."""
        if self._decided is not self._turned:
            for decided, out in zip(self._decided, self._turned, strict=True):
                put_back(decided, out)


def bytes_of(regions: int) -> int:
    """Bytes that hold a bit for each of so many regions."""
    return -(-regions // 8)


def painted(packed: Packed, values: list[int], dtype: npt.DTypeLike) -> tuple[LabelMap, tuple[LabelMap, ...]]:
    """Labels painted over each other in their order, and layers where any overlap.

    Parameters
    ----------
    packed
        Array (bytes, i, j, k), as `volseg.inference.decide.restore_regions` writes it.
    values
        Values of the labels.
    dtype
        Unsigned type that holds them.
    """
    shape = packed.shape[1], packed.shape[2], packed.shape[3]
    array: LabelMap = np.zeros(shape, dtype)
    for number, value in enumerate(values):
        array[_region(packed, number)] = value
    layers = layered(((value, _region(packed, number)) for number, value in enumerate(values)), shape, dtype)
    return array, layers if len(layers) > 1 else ()


def _region(packed: Packed, number: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = packed[number // 8] & (1 << number % 8) != 0
    return found
