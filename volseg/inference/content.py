"""What a scan's voxels say of it before a network sees them: that there is nothing to see, or that it is no scan."""

from __future__ import annotations

import numpy as np

from volseg.errors import InputError
from volseg.volume import Volume, Voxels

#: A scan with no more different values than this, all of them whole, is taken for a mask.
FEW_VALUES = 16
#: A mask's values are from 0 to below this.
HIGHEST_VALUE = 256
#: Voxels that are looked at first: a scan has many values among them.
_SAMPLE = 4096


def check_content(volume: Volume) -> None:
    """Refuse a scan in which nothing is to be seen: a network answers for that too, and its answer means nothing.

    Raises
    ------
    InputError
        Code ``constant``: every channel holds one value alone.
    """
    values = [_only_value(channel) for channel in volume.array_CIJK]
    if None not in values:
        shown = ", ".join(sorted({f"{value:g}" for value in values if value is not None}))
        raise InputError(f"every voxel has the value {shown}: there is nothing to segment", code="constant")


def content_flags(volume: Volume) -> list[str]:
    """Flags of a scan: ``looks-like-a-mask``, or ``constant-channel`` where others aren't."""
    flags = []
    for number, channel in enumerate(volume.array_CIJK):
        called = f"channel {number}" if volume.channels > 1 else "the scan"
        if (only := _only_value(channel)) is not None:
            flags.append(f"constant-channel: every voxel of {called} has the value {only:g}")
        elif few := _few_values(channel):
            flags.append(f"looks-like-a-mask: {called} holds {len(few)} different values alone, {_listed(few)}")
    return flags


def _only_value(array: Voxels) -> float | None:
    """The value that every voxel has, if it is one."""
    first = array.flat[0]
    return float(first) if bool((array == first).all()) else None


def _few_values(array: Voxels) -> list[int]:
    """The values of an array that holds few, all of them a mask's; none of another."""
    step = max(1, array.size // _SAMPLE)
    if np.unique(array.flat[::step]).size > FEW_VALUES:
        return []
    low, high = array.min(), array.max()
    whole = array.dtype.kind in "iu" or np.array_equal(array, np.rint(array))
    if low < 0 or high >= HIGHEST_VALUE or not whole:
        return []
    values = np.flatnonzero(np.bincount(array.ravel(order="K").astype(np.uint8))).tolist()
    return values if len(values) <= FEW_VALUES else []


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
