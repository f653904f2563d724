"""What is said of a scan before the network sees it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from volseg.errors import InputError
from volseg.geometry import Geometry
from volseg.inference.content import check_content, content_flags
from volseg.volume import Volume

SHAPE = (20, 21, 22)


def volume(*channels: npt.NDArray[np.generic]) -> Volume:
    return Volume(np.stack(channels) if len(channels) > 1 else channels[0], Geometry(SHAPE, np.eye(4)))


def scan() -> npt.NDArray[np.int16]:
    return np.random.default_rng(3).integers(-100, 900, SHAPE).astype(np.int16)


@pytest.mark.parametrize("value", [0, -1024, 0.5])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_scan_of_one_value_is_refused(value: float, channels: int) -> None:
    with pytest.raises(InputError, match=f"every voxel has the value {value:g}: there is nothing") as caught:
        check_content(volume(*[np.full(SHAPE, value, np.float32)] * channels))
    assert caught.value.code == "constant"


def test_one_other_voxel_is_something_to_see() -> None:
    array = np.zeros(SHAPE, np.int16)
    array[-1, -1, -1] = 1
    check_content(volume(array))


def test_a_blank_channel_beside_another_is_flagged() -> None:
    blank = volume(scan(), np.zeros(SHAPE, np.int16))
    check_content(blank)
    assert content_flags(blank) == ["constant-channel: every voxel of channel 1 has the value 0"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_few_whole_numbers_look_like_a_mask(dtype: type) -> None:
    array: npt.NDArray[np.generic] = np.zeros(SHAPE, dtype)
    array[2:5, 3:6, 4:7], array[9, 9, 9], array[10, 3, 2], array[1, 1, 1] = 3, 117, 4, 2
    said = "looks-like-a-mask: the scan holds 5 different values alone, 0, 2, 3, 4, ..."
    assert content_flags(volume(array)) == [said]


@pytest.mark.parametrize("change", [-1, 256, 0.5])
def test_other_numbers_are_a_scan_s(change: float) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[2, 2, 2], array[3, 3, 3] = 1, change
    assert content_flags(volume(array)) == []


def test_a_scan_of_eight_bits_and_one_that_is_mostly_air_are_no_masks() -> None:
    assert content_flags(volume((scan() % 256).astype(np.uint8))) == []
    # Of the voxels that are looked at first, few are the object's.
    array = np.zeros(SHAPE, np.uint8)
    array[5, 5, :17] = np.arange(1, 18)
    assert content_flags(volume(array)) == []
