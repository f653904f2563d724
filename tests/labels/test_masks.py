"""A folder of binary masks, and what becomes of those that don't fit."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.helpers.tiny import Array, scan, write_nifti
from volseg.errors import InputError, RefusalError, UsageError
from volseg.geometry import Geometry
from volseg.labels.masks import is_mask_folder, mask_files
from volseg.labels.read import is_label_map, load_labels, load_labels_as
from volseg.volume import Label, Volume

SHAPE = (7, 6, 5)
AFFINE = np.diag([1.5, 1.5, 2.0, 1.0])
IMAGE = Volume(scan(SHAPE), Geometry(SHAPE, AFFINE))
TABLE = [Label(value=value, name=name, colour=(1, 2, 3)) for value, name in ((5, "spleen"), (2, "Liver"))]


def box(*corner: int) -> Array:
    """A block of eight voxels."""
    i, j, k = corner
    mask = np.zeros(SHAPE, np.uint8)
    mask[i : i + 2, j : j + 2, k : k + 2] = 1
    return mask


def masks(folder: Path, **structures: Array) -> Path:
    for name, mask in structures.items():
        write_nifti(folder / "segmentations" / f"{name}.nii.gz", mask, AFFINE)
    return folder / "segmentations"


def refused(folder: Path) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        load_labels_as(folder, IMAGE, TABLE)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_masks_are_the_labels_of_their_names(tmp_path: Path) -> None:
    """Others aren't read: what they hold doesn't matter."""
    folder = masks(tmp_path, liver=box(0, 1, 2), spleen=255 * box(4, 3, 1))
    (folder / "kidney.nii.gz").write_text("not read")
    (folder / "notes.txt").touch()
    labels = load_labels_as(folder, IMAGE, TABLE)
    assert np.array_equal(labels.array, 2 * box(0, 1, 2) + 5 * box(4, 3, 1))
    assert [label.value for label in labels.labels] == [2, 5]
    assert labels.source.notes == ()
    assert labels.geometry is IMAGE.geometry
    assert not is_label_map(folder)


def test_an_empty_mask_is_a_structure_that_isn_t_there(tmp_path: Path) -> None:
    folder = masks(tmp_path, liver=box(0, 1, 2), spleen=box(0, 0, 0) * 0)
    labels = load_labels_as(folder, IMAGE, TABLE)
    assert np.array_equal(labels.array, 2 * box(0, 1, 2))
    assert labels.source.notes == ()


def test_an_absent_mask_is_refused(tmp_path: Path) -> None:
    structures = {f"structure_{number}": box(0, 0, 0) for number in range(6)}
    error = refused(masks(tmp_path, spleen=box(0, 0, 0), **structures))
    assert error.code == "unsupported"
    assert "no mask is called 'Liver'; there are 'spleen', 'structure_0'," in str(error)
    assert "and 2 more" in str(error)


def test_the_later_label_is_on_top_of_the_earlier(tmp_path: Path) -> None:
    """TABLE names the liver last, though its value is the smaller."""
    folder = masks(tmp_path, liver=box(0, 1, 2), spleen=box(1, 1, 2))
    labels = load_labels_as(folder, IMAGE, TABLE)
    expected = 5 * box(1, 1, 2)
    expected[box(0, 1, 2) == 1] = 2
    assert np.array_equal(labels.array, expected)
    assert labels.source.notes == ("4 voxels are in several masks; the later one has them",)
    with pytest.raises(InputError, match="masks 'liver' and 'spleen' overlap") as caught:
        load_labels(folder, IMAGE)
    assert caught.value.code == "overlap"


def test_without_names_all_are_numbered_by_the_alphabet(tmp_path: Path) -> None:
    folder = masks(tmp_path, spleen=box(4, 3, 1), aorta=box(0, 4, 3), liver=box(0, 1, 2))
    labels = load_labels(folder, IMAGE)
    assert [(label.value, label.name) for label in labels.labels] == [(1, "aorta"), (2, "liver"), (3, "spleen")]
    assert np.array_equal(labels.array, box(0, 4, 3) + 2 * box(0, 1, 2) + 3 * box(4, 3, 1))


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    folder = masks(tmp_path, liver=box(0, 1, 2), spleen=box(0, 0, 0))
    write_nifti(folder / "spleen.nii.gz", box(0, 0, 0), np.diag([1.5, 1.5, 2.1, 1.0]))
    error = refused(folder)
    assert error.code == "grid-mismatch"
    assert "spleen.nii.gz" in str(error)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_mask_of_several_values_is_refused(tmp_path: Path, factor: float) -> None:
    two = (box(0, 1, 2) + factor * box(4, 3, 1)).astype(np.float32)
    error = refused(masks(tmp_path, liver=two, spleen=box(0, 0, 0)))
    assert error.code == "unsupported"
    assert "beside 0" in str(error)
    several = np.stack([box(0, 0, 0)] * 2, axis=-1)
    write_nifti(tmp_path / "segmentations" / "liver.nii.gz", several, AFFINE)
    assert refused(tmp_path / "segmentations").code == "not-3d"


def test_two_masks_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = masks(tmp_path, liver=box(0, 1, 2))
    write_nifti(folder / "LIVER.nii", box(0, 1, 2), AFFINE)
    with pytest.raises(UsageError, match=r"two masks of one structure, LIVER.nii and liver.nii.gz"):
        mask_files(folder)


def test_only_a_folder_of_that_name_holds_masks(tmp_path: Path) -> None:
    """Elsewhere several label maps may be those of several readers: nothing says which to take."""
    folder = masks(tmp_path, liver=box(0, 1, 2), spleen=box(4, 3, 1))
    assert is_mask_folder(folder)
    folder = folder.rename(tmp_path / "readers")
    assert not is_mask_folder(folder)
    with pytest.raises(UsageError, match="holds 2 files of labels"):
        load_labels(folder, IMAGE)
    (tmp_path / "segmentations").mkdir()
    assert not is_mask_folder(tmp_path / "segmentations")


def test_masks_may_store_the_image_s_voxels_in_another_order(tmp_path: Path) -> None:
    folder = masks(tmp_path, liver=box(0, 1, 2), spleen=box(4, 3, 1))
    image = nibabel.load(folder / "liver.nii.gz")
    wanted = nibabel.orientations.axcodes2ornt("IPR")
    turning = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted)
    turned = image.as_reoriented(turning)
    nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine), folder / "liver.nii.gz")
    labels = load_labels_as(folder, IMAGE, TABLE)
    assert np.array_equal(labels.array, 2 * box(0, 1, 2) + 5 * box(4, 3, 1))
    assert any("stored as IPR" in note for note in labels.source.notes)
