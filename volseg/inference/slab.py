"""The sums of what the network says of the rows of a scan that windows still add to, weighted."""

from __future__ import annotations

import mmap
import tempfile

import numpy as np
import torch
from torch import Tensor

from volseg.errors import RefusalError

#: Bytes that are written at once to make a file as long as the slab.
PIECE = 1 << 24


class Slab:
    """A ring of rows: row `r` of the scan lies in place ``r % rows``, and is 0 before anything is added.

    Parameters
    ----------
    rows
        Number of rows that are held at once.
    plane
        H, W and V of a row: values of a voxel, which are logits or features.
    in_file
        Whether they are kept in a temporary file, which has no name or loses it when the slab goes: also after an
        error.

    Raises
    ------
    RefusalError
        Code ``memory``: the disk has no room for the file.
    """

    def __init__(self, rows: int, plane: tuple[int, int, int], *, in_file: bool = False) -> None:
        self._map: mmap.mmap | None = None
        shape = (rows, *plane)
        if in_file:
            self._map = _mapped(int(np.prod(shape, dtype=np.int64)) * 4)
            self._ring = torch.from_numpy(np.frombuffer(self._map, dtype=np.float32).reshape(shape))
        else:
            self._ring = torch.zeros(shape)

    def add(self, first: int, place: tuple[slice, slice, slice], values_RHWV: Tensor, weight_RHW: Tensor) -> None:
        """Add weighted values to the rows from `first` on, at `place` along H, W and V.

        A row at a time: nothing of the window's size is made, and the two operations on each number are the same
        wherever the ring begins. A fused multiply-add might round otherwise.
        """
        for row, (values, weight) in enumerate(zip(values_RHWV, weight_RHW, strict=True), first):
            self._ring[(row % len(self._ring), *place)] += values * weight[..., None]
        self._let_go()

    def mean(self, rows: slice, place: tuple[slice, slice], divisor_RHW: Tensor) -> Tensor:
        """(R, H, W, V) sums of `rows` at `place`, divided by the sum of weights at each voxel."""
        result = torch.empty((*divisor_RHW.shape, self._ring.shape[-1]))
        for row, out, divisor in zip(range(rows.start, rows.stop), result, divisor_RHW, strict=True):
            torch.div(self._ring[(row % len(self._ring), *place)], divisor[..., None], out=out)
        self._let_go()
        return result

    def clear(self, rows: slice) -> None:
        """Set rows back to 0, for those that come to lie in their places."""
        for row in range(rows.start, rows.stop):
            self._ring[row % len(self._ring)] = 0
        self._let_go()

    def _let_go(self) -> None:
        """Give the memory that holds parts of the file back to the system; the file keeps them."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _mapped(size: int) -> mmap.mmap:
    """A new temporary file of `size` zeros, mapped to memory."""
    zeros = bytes(PIECE)
    try:
        with tempfile.TemporaryFile(prefix="volseg-") as file:
            # Written, not only made as long: a hole that the disk can't fill later would end the process.
            for start in range(0, size, PIECE):
                file.write(zeros[: min(PIECE, size - start)])
            file.flush()
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise RefusalError(
            f"no room for a temporary file of {size / 1e9:.1f} GB in {tempfile.gettempdir()}: {error.strerror}",
            code="memory",
        ) from error
