from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

import volseg
from volseg.errors import UsageError
from volseg.geometry import Geometry
from volseg.volume import Label, LabelVolume, Source, Volume, canonical_modality

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
