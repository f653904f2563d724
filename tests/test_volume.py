from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

import volseg
from volseg.errors import UsageError
from volseg.geometry import AxisMap, Geometry
from volseg.volume import Label, LabelVolume, Source, Volume, canonical_modality, layered

SHAPE = (3, 4, 2)
AFFINE = np.array([[0, 0, 4, 5], [-1.5, 0, 0, 6], [0, 2, 0, 7], [0, 0, 0, 1]], dtype=float)


@pytest.fixture
def geometry() -> Geometry:
    return Geometry(SHAPE, AFFINE)


def labels(*values: int) -> tuple[Label, ...]:
    return tuple(Label(value=value, name=f"l{value}", colour=(value, 0, 0)) for value in values)


def test_a_volume_without_channels(geometry: Geometry) -> None:
    volume = Volume(np.zeros(SHAPE), geometry)
    assert volume.channels == 1
    assert volume.array_CIJK.shape == (1, *SHAPE)
    assert volume.source == Source(kind="array", name="volume")


def test_a_volume_with_channels(geometry: Geometry) -> None:
    volume = Volume(np.zeros((5, *SHAPE)), geometry)
    assert volume.channels == 5
    assert volume.array_CIJK is volume.array


@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 4), (1, 1, 3, 4, 2), (3, 4, 2, 1)])
def test_an_array_off_its_grid_is_refused(geometry: Geometry, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"on a grid of shape \(3, 4, 2\)"):
        Volume(np.zeros(shape), geometry)


def test_with_array_keeps_the_rest(geometry: Geometry) -> None:
    source = Source(kind="nifti", name="a", modality="MR")
    volume = Volume(np.zeros(SHAPE), geometry, source).with_array(np.ones(SHAPE))
    assert volume.array.all()
    assert volume.geometry is geometry
    assert volume.source is source
    with pytest.raises(ValueError, match="grid"):
        volume.with_array(np.ones((1, 1, 1)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_labels_are_unsigned(geometry: Geometry, dtype: npt.DTypeLike) -> None:
    assert LabelVolume(np.zeros(SHAPE, dtype=dtype), geometry, labels(1)).array.dtype == dtype


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.bool_])
def test_other_types_are_refused(geometry: Geometry, dtype: npt.DTypeLike) -> None:
    with pytest.raises(ValueError, match="labels are unsigned integers, not"):
        LabelVolume(np.zeros(SHAPE, dtype=dtype), geometry, labels(1))


@pytest.mark.parametrize("values", [(2, 1), (1, 1), (0, 1), (-1,)])
def test_label_values_are_positive_different_and_ascending(geometry: Geometry, values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not positive, different and ascending"):
        LabelVolume(np.zeros(SHAPE, dtype=np.uint8), geometry, labels(*values))


def test_a_mask_has_no_channels(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match="on a grid of shape"):
        LabelVolume(np.zeros((1, *SHAPE), dtype=np.uint8), geometry, labels(1))


def test_voxel_counts(geometry: Geometry) -> None:
    array = np.zeros(SHAPE, dtype=np.uint16)
    array[0, :3, 1] = 2
    array[2, 2, 0] = 9  # not a label that is listed
    assert LabelVolume(array, geometry, labels(1, 2, 300)).voxel_counts() == {1: 0, 2: 3, 300: 0}
    assert LabelVolume(array, geometry, ()).voxel_counts() == {}


def test_label_with_array_keeps_the_rest(geometry: Geometry) -> None:
    mask = LabelVolume(np.zeros(SHAPE, dtype=np.uint8), geometry, labels(1, 2))
    other = mask.with_array(np.ones(SHAPE, dtype=np.uint8))
    assert (other.labels, other.geometry, other.source) == (mask.labels, mask.geometry, mask.source)
    assert other.voxel_counts() == {1: 24, 2: 0}


def test_save_writes_what_nibabel_reads(geometry: Geometry, tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(SHAPE)
    volseg.save(LabelVolume(array, geometry, labels(*range(1, 24))), tmp_path / "mask.nii.gz")
    image = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)


def test_save_refuses_an_ending_that_names_no_format(geometry: Geometry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mask\.png"):
        volseg.save(LabelVolume(np.zeros(SHAPE, dtype=np.uint8), geometry, labels(1)), tmp_path / "mask.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given_name", "term"), [("MRI", "MR"), (" mr ", "MR"), ("PET", "PT"), ("pt", "PT"), ("CT", "CT"), ("us", "US")]
)
def test_modalities_are_dicoms(given_name: str, term: str) -> None:
    assert canonical_modality(given_name) == term


def overlapping(geometry: Geometry) -> LabelVolume:
    """Label 2 is painted over label 1, which it lies in; 5 is apart."""
    array = np.zeros(SHAPE, np.uint8)
    array[:2, 1:] = 1
    array[1, 1:3] = 2
    array[2, 0] = 5
    below, above = array.copy(), np.zeros_like(array)
    below[below == 2] = 1
    above[array == 2] = 2
    return LabelVolume(array, geometry, labels(1, 2, 5), layers=(below, above))


def test_layers_hold_all_of_labels_that_overlap(geometry: Geometry) -> None:
    mask = overlapping(geometry)
    one, two, five = (mask.voxels_of(label) for label in mask.labels)
    assert np.argwhere(one).tolist() == [[i, j, k] for i in (0, 1) for j in range(1, SHAPE[1]) for k in range(SHAPE[2])]
    assert np.array_equal(two, mask.array == 2)
    assert np.array_equal(five, mask.array == 5)
    assert (one & two).sum() == two.sum() > 0
    # Without layers, the array says it all.
    flat = mask.with_array(mask.array)
    assert flat.layers == ()
    assert np.array_equal(flat.voxels_of(mask.labels[0]), mask.array == 1)


def test_what_is_done_to_a_mask_is_done_to_its_layers(geometry: Geometry) -> None:
    mask = overlapping(geometry)
    first = mask.only(mask.labels[:1])
    assert np.array_equal(first.array, mask.array == 1)
    assert np.array_equal(first.voxels_of(mask.labels[0]), mask.voxels_of(mask.labels[0]))
    assert [set(np.unique(layer)) for layer in first.layers] == [{0, 1}, {0}]
    axes = AxisMap.between(geometry.orientation, "SPR")
    turned = mask.mapped(axes.apply, geometry.turned(axes))
    for label in mask.labels:
        assert np.array_equal(turned.voxels_of(label), axes.apply(mask.voxels_of(label)))


def test_layers_off_the_grid_are_refused(geometry: Geometry) -> None:
    array = np.zeros(SHAPE, np.uint8)
    wrongs: tuple[npt.NDArray[Any], ...] = array[:-1], array.astype(np.int16)
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"array of shape|unsigned"):
            LabelVolume(array, geometry, labels(1), layers=(array, wrong))


def test_layers_are_as_few_as_first_fit_needs() -> None:
    """1 and 2 overlap, 2 and 3, and 1 and 3 don't: 3 goes to the layer of 1."""
    voxels = np.zeros((3, 4, 1, 1), np.bool_)
    voxels[0, :2] = voxels[1, 1:3] = voxels[2, 2:] = True
    found = layered(zip((1, 2, 300), voxels, strict=True), (4, 1, 1), np.uint16)
    assert [layer.ravel().tolist() for layer in found] == [[1, 1, 300, 300], [0, 2, 2, 0]]
    assert layered([], (4, 1, 1), np.uint8) == ()
