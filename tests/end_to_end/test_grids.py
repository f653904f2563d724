"""A mask comes back on the scan's own grid, at the right voxels, however the scan is stored.

The model's weights are set by hand, so every voxel of each mask is known. Read back with nibabel and highdicom.
"""

from __future__ import annotations

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest

import volseg
from tests.helpers import dicom_files
from tests.helpers.tiny import Array, scan, threshold_model, thresholded, untrained_model, write_nifti
from volseg.inference import Model

ORIENTATIONS = [
    first + second + third
    for first in "RLAPSI"
    for second in "RLAPSI"
    for third in "RLAPSI"
    if len({"RLAPSI".index(letter) // 2 for letter in first + second + third}) == 3
]
SHAPE = (9, 14, 11)
SPACING = (0.8, 1.3, 2.1)


@pytest.fixture(scope="module")
def threshold(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(threshold_model(tmp_path_factory.mktemp("models") / "threshold"))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Resamples, sees neighbourhoods, pads and slides: all that could turn or shift a mask."""
    folder = tmp_path_factory.mktemp("models") / "untrained"
    return Model(untrained_model(folder, window=[8, 8, 8], spacing_mm=[1.1, 1.0, 1.7], orientation="SAR"))


def affine_of(orientation: str, rotation: Array | None = None) -> Array:
    """Affine whose axes grow in the directions of `orientation`, turned by `rotation`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(orientation):
        world = "RLAPSI".index(letter) // 2
        affine[world, axis] = SPACING[axis] if letter in "RAS" else -SPACING[axis]
    if rotation is not None:
        affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = (-31.5, 12.25, 47.0)
    return affine


def test_there_are_48_orientations() -> None:
    assert len(ORIENTATIONS) == 48
    assert all("".join(nibabel.aff2axcodes(affine_of(o))) == o for o in ORIENTATIONS)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_nifti(tmp_path: Path, threshold: Model, orientation: str, oblique: bool) -> None:
    affine = affine_of(orientation, dicom_files.rotation(12, -17, 9) if oblique else None)
    array = scan(SHAPE, seed=ORIENTATIONS.index(orientation))
    source = write_nifti(tmp_path / "scan.nii.gz", array, affine)
    volseg.save(threshold.predict(volseg.load(source)), tmp_path / "mask.nii.gz")
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert mask.shape == SHAPE
    assert np.abs(mask.affine - nibabel.load(source).affine).max() <= 1e-4
    assert np.array_equal(np.asarray(mask.dataobj), thresholded(array))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIR", "ILA"])
@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -17, 9), (35, 20, -50)])
def test_dicom(tmp_path: Path, threshold: Model, orientation: str, angles: tuple[int, int, int]) -> None:
    affine_ras = affine_of(orientation, dicom_files.rotation(*angles))
    affine_lps = np.diag([-1, -1, 1, 1]) @ affine_ras
    array = scan(SHAPE, seed=5)
    dicom_files.write_series(tmp_path / "series", array, affine_lps)
    # Slices ascend along row x column: a left-handed stack is read the other way round.
    right_handed = np.linalg.det(affine_ras[:3, :3]) > 0
    expected = thresholded(array if right_handed else array[:, :, ::-1])
    if not right_handed:
        affine_ras = affine_ras @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, SHAPE[2] - 1], [0, 0, 0, 1]])

    labels = threshold.predict(volseg.load(tmp_path / "series"))
    volseg.save(labels, tmp_path / "mask.nii.gz")
    volseg.save(labels, tmp_path / "mask.dcm")

    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert mask.shape == SHAPE
    assert np.abs(mask.affine - affine_ras).max() <= 1e-4
    assert np.array_equal(np.asarray(mask.dataobj), expected)

    seg = highdicom.seg.segread(tmp_path / "mask.dcm")
    volume = seg.get_volume(combine_segments=True)
    # highdicom's axes are [slice, row, column], its frame LPS.
    to_world = np.diag([-1, -1, 1, 1]) @ volume.affine
    found = np.argwhere(volume.array)
    wanted = np.argwhere(expected)
    order = np.lexsort(np.round(found @ to_world[:3, :3].T + to_world[:3, 3], 3).T)
    world_found = (found @ to_world[:3, :3].T + to_world[:3, 3])[order]
    world_wanted = wanted @ affine_ras[:3, :3].T + affine_ras[:3, 3]
    again = np.lexsort(np.round(world_wanted, 3).T)
    assert np.abs(world_found - world_wanted[again]).max() <= 1e-4
    assert np.array_equal(volume.array[tuple(found[order].T)], expected[tuple(wanted[again].T)])


@pytest.mark.parametrize("orientation", ["LPS", "SAR", "PIR", "ILA", "ALI"])
def test_a_mask_does_not_depend_on_how_the_scan_is_stored(tmp_path: Path, untrained: Model, orientation: str) -> None:
    """One scan, stored in RAS and in another way by nibabel: its masks are the same voxels."""
    stored = nibabel.Nifti1Image(scan((21, 14, 17), seed=2), affine_of("RAS"))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(orientation)
    )
    other = stored.as_reoriented(turn)
    masks = []
    for name, image in (("ras", stored), ("other", other)):
        nibabel.save(image, tmp_path / f"{name}.nii")
        mask = untrained.predict(volseg.load(tmp_path / f"{name}.nii"))
        assert mask.geometry.shape == image.shape
        assert np.abs(mask.geometry.affine - image.affine).max() <= 1e-4
        masks.append(nibabel.Nifti1Image(mask.array, mask.geometry.affine))
    assert len(np.unique(masks[0].dataobj)) > 1
    assert np.array_equal(np.asarray(masks[0].as_reoriented(turn).dataobj), np.asarray(masks[1].dataobj))


def test_windows_overlap_pad_and_mirror_without_a_trace(threshold: Model) -> None:
    """Every shape around the window's size, mirrored or not, gives the same function of each voxel."""
    from volseg.geometry import Geometry
    from volseg.volume import Volume

    for shape in ((1, 8, 9), (7, 20, 8), (16, 3, 13)):
        array = scan(shape, seed=sum(shape))
        volume = Volume(array, Geometry(shape, affine_of("LPS")))
        for mirroring in (True, False):
            assert np.array_equal(threshold.predict(volume, mirroring=mirroring).array, thresholded(array))


def test_a_resampled_box_comes_back_where_it_was(tmp_path: Path) -> None:
    """On another spacing than the scan's, a box's edges move by less than a voxel of the coarser grid."""
    model = Model(threshold_model(tmp_path / "m", spacing_mm=[1.0, 1.5, 1.25], orientation="PSL"))
    array = np.zeros((24, 20, 18), dtype=np.int16)
    array[5:17, 4:13, 6:14] = 150
    source = write_nifti(tmp_path / "scan.nii", array, affine_of("ILA", dicom_files.rotation(5, 5, 5)))
    mask = model.predict(volseg.load(source)).array
    assert mask[6:16, 5:12, 7:13].min() == 1
    outside = mask.copy()
    outside[4:18, 3:14, 5:15] = 0
    assert outside.max() == 0
