"""A first stage's labels as the second stage of a cascade sees them; expected values by hand, and by scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from tests.helpers.tiny import tiny_recipe
from volseg.config import Recipe
from volseg.geometry import Geometry
from volseg.preprocess import prepare
from volseg.preprocess.stage1 import prepare_second
from volseg.volume import LabelVolume, Volume

Array = npt.NDArray[Any]


def seen(labels: Array, scan: Array, spacing_mm: tuple[float, float, float], **changes: Any) -> Array:
    """The label channel of a scan of voxels of 1 mm that are resampled to `spacing_mm`; i, j, k become D, H, W."""
    given = {"orientation": "RAS", "intensity": {"scheme": "none"}, "crop": "nonzero", "spacing_mm": list(spacing_mm)}
    task: Recipe = tiny_recipe(**given | changes)
    geometry = Geometry(labels.shape, np.eye(4))
    volume = Volume(scan, geometry)
    tensor = prepare_second(volume, LabelVolume(labels, geometry, task.label_table()), task).tensor_CDHW
    assert torch.equal(tensor[:-1], prepare(volume, task).tensor_CDHW)
    channel: Array = tensor[-1].numpy()
    return channel


def line(*values: int) -> Array:
    return np.array(values, np.uint8).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # Half of a voxel each: that of the nearest voxel, which of two is the later one, whichever value is larger.
        (line(1, 2, 2, 1), [2, 1]),
        (line(0, 2, 2, 0), [2, 0]),
        (line(2, 2, 1, 1), [2, 1]),
    ],
)
def test_equal_shares_go_to_the_nearest_voxel(labels: Array, expected: list[int]) -> None:
    assert seen(labels, np.ones(labels.shape, np.int16), (1, 1, 2)).ravel().tolist() == expected


def test_background_beyond_the_content_is_a_label_of_its_own() -> None:
    """Four voxels become one: half is label 1, a quarter background inside and a quarter, the nearest, outside."""
    labels = np.array([[1, 1], [0, 0]], np.uint8)[None]
    scan = np.array([[5, 5], [5, 0]], np.int16)[None]
    assert seen(labels, scan, (1, 2, 2)).ravel().tolist() == [1]
    assert seen(labels, scan, (1, 2, 2), crop="none").ravel().tolist() == [0]


def test_a_label_beyond_the_content_stays_and_the_grid_of_the_scan_needs_no_resampling() -> None:
    scan = np.zeros((3, 4, 5), np.int16)
    scan[1:, 1:3, 2:4] = [[[7, 0], [7, 7]], [[7, 7], [0, 7]]]
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) % 3
    assert np.array_equal(seen(labels, scan, (1, 1, 1)), labels[1:, 1:3, 2:4])


@pytest.mark.parametrize("separate", ["never", "always"])
@pytest.mark.parametrize("spacing_mm", [(0.7, 1.3, 0.9), (1.6, 0.6, 2.0), (0.5, 2.0, 0.8)])
def test_the_largest_share_wins(separate: str, spacing_mm: tuple[float, float, float]) -> None:
    """Against scipy: the mask of each label interpolated by itself, in whole or slice by slice along the first axis.

    Shares are compared to the last bit, and of equal ones that of the nearest voxel is taken, or else the first.
    """
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, (9, 8, 12)).astype(np.uint8)
    task = tiny_recipe(
        orientation="RAS", crop="none", spacing_mm=list(spacing_mm), resampling={"separate_axis": separate}
    )
    geometry = Geometry(labels.shape, np.diag([1.5, 1, 1, 1]))
    volume = Volume(rng.integers(1, 9, labels.shape).astype(np.int16), geometry)
    got = prepare_second(volume, LabelVolume(labels, geometry, task.label_table()), task).tensor_CDHW[-1].numpy()
    factors = [new / old for new, old in zip(got.shape, labels.shape, strict=True)]

    def zoomed(array: Array, factors: list[float], order: int) -> Array:
        zoom: Any = ndimage.zoom  # its stubs are stricter than it is
        return np.asarray(zoom(array, factors, order=order, mode="nearest", grid_mode=True))

    masks = [(labels == value).astype(float) for value in range(3)]
    if separate == "always":
        flat = [np.stack([zoomed(plane, factors[1:], 1) for plane in mask]) for mask in masks]
        shares = np.stack([zoomed(share, [factors[0], 1.0, 1.0], 0) for share in flat])
    else:
        shares = np.stack([zoomed(mask, factors, 1) for mask in masks])
    nearest = zoomed(labels, factors, 0)
    tied = np.take_along_axis(shares, nearest[None].astype(int), 0)[0] == shares.max(0)
    expected = np.where(tied, nearest, shares.argmax(0))
    assert np.array_equal(got, expected)


def test_what_is_labelled_counts_as_content_in_normalisation() -> None:
    scan = np.zeros((3, 4, 5), np.int16)
    scan[0, 0, 0], scan[2, 3, 4], scan[1, 1, 1] = 4, 8, 6
    labels = np.zeros(scan.shape, np.uint8)
    labels[0, 1, 2] = labels[1, 1, 1] = 1
    task = tiny_recipe(
        orientation="RAS", crop="nonzero", spacing_mm=None, intensity={"scheme": "zscore", "use_mask": True}
    )
    geometry = Geometry(labels.shape, np.eye(4))
    got = prepare_second(Volume(scan, geometry), LabelVolume(labels, geometry, task.label_table()), task).tensor_CDHW
    inside = np.array([4, 8, 6, 0])  # the last is labelled, and no content
    expected = np.where((scan != 0) | (labels != 0), (scan - inside.mean()) / inside.std(), 0)
    np.testing.assert_allclose(got[0].numpy(), expected, atol=1e-6)
