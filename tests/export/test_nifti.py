from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from tests.helpers.oblique_masks import LABELS, SHAPE, mask_on, oblique
from volseg.errors import ExportError
from volseg.export import nifti
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry, ras_from_lps
from volseg.volume import Label, LabelVolume, NiftiSource


def said(sform: int, qform: int, units: tuple[str, str] = ("mm", "sec")) -> NiftiSource:
    return NiftiSource(sform_code=sform, qform_code=qform, units=units)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_all_orientations_read_back_by_two_libraries(tmp_path: Path, orientation: str) -> None:
    geometry = oblique().turned(AxisMap.between(oblique().orientation, orientation))
    mask = mask_on(Geometry(SHAPE, geometry.affine))
    assert nifti.write(mask, tmp_path / "m.nii.gz") == ()
    image = nibabel.load(tmp_path / "m.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), mask.array)
    np.testing.assert_allclose(image.affine, mask.geometry.affine, atol=1e-5)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), mask.geometry.affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    itk = SimpleITK.ReadImage(str(tmp_path / "m.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk).T, mask.array)
    point = np.array(itk.TransformIndexToPhysicalPoint((2, 4, 3)))
    np.testing.assert_allclose(ras_from_lps(point), mask.geometry.voxel_to_world((2, 4, 3)), atol=1e-3)


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 0), (0, 1), (0, 2), (3, 3)])
def test_codes_and_units_are_the_sources(tmp_path: Path, codes: tuple[int, int]) -> None:
    nifti.write(mask_on(oblique(), said(*codes)), tmp_path / "m.nii")
    image = nibabel.load(tmp_path / "m.nii")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == codes
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(image.affine, oblique().affine, atol=1e-4)


def test_no_code_at_all_stays_so_where_a_reader_finds_the_grid(tmp_path: Path) -> None:
    default = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), None)
    default.header.set_zooms((1.0, 2.0, 3.0))
    geometry = Geometry(SHAPE, default.header.get_best_affine())
    nifti.write(mask_on(geometry, said(0, 0)), tmp_path / "m.nii")
    image = nibabel.load(tmp_path / "m.nii")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    np.testing.assert_allclose(image.affine, geometry.affine, atol=1e-6)
    nifti.write(mask_on(oblique(), said(0, 0)), tmp_path / "m.nii")
    np.testing.assert_allclose(nibabel.load(tmp_path / "m.nii").affine, oblique().affine, atol=1e-5)


@pytest.mark.parametrize(("codes", "expected"), [((2, 1), (2, 0)), ((0, 3), (3, 0))])
def test_a_sheared_grid_is_in_the_sform_alone(
    tmp_path: Path, codes: tuple[int, int], expected: tuple[int, int]
) -> None:
    affine = oblique().affine @ np.array([[1, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    nifti.write(mask_on(Geometry(SHAPE, affine), said(*codes)), tmp_path / "m.nii.gz")
    image = nibabel.load(tmp_path / "m.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == expected
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)


def test_a_rotation_that_a_quaternion_holds_badly_is_in_the_sform(tmp_path: Path) -> None:
    # Near 180 degrees the quaternion's first number is near 0 and is lost in single precision.
    geometry = oblique(179.99, shape=(300, 5, 4))
    nifti.write(mask_on(geometry, said(0, 1)), tmp_path / "m.nii.gz")
    held = Geometry(geometry.shape, nibabel.load(tmp_path / "m.nii.gz").affine)
    assert held.difference(geometry, tolerance_mm=1e-4) is None


def test_another_qform_of_the_source_is_kept(tmp_path: Path) -> None:
    other = oblique(-40.0).affine
    source = NiftiSource(
        sform_code=4, qform_code=1, units=("mm", "sec"), qform=tuple(tuple(map(float, row)) for row in other)
    )
    nifti.write(mask_on(oblique(), source), tmp_path / "m.nii.gz")
    image = nibabel.load(tmp_path / "m.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 1)
    np.testing.assert_allclose(image.affine, oblique().affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), other, atol=1e-4)


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_the_smallest_type_that_holds_every_declared_label(tmp_path: Path, value: int, dtype: type) -> None:
    labels = (Label(value=value, name="high", colour=(0, 0, 0)),)
    nifti.write(LabelVolume(np.zeros(SHAPE, np.uint32), oblique(), labels), tmp_path / "m.nii.gz")
    assert nibabel.load(tmp_path / "m.nii.gz").get_data_dtype() == dtype
    array = np.full(SHAPE, value, np.uint32)
    nifti.write(LabelVolume(array, oblique(), LABELS), tmp_path / "m.nii.gz")
    image = nibabel.load(tmp_path / "m.nii.gz")
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)


def test_equal_masks_are_equal_bytes(tmp_path: Path) -> None:
    nifti.write(mask_on(oblique()), tmp_path / "a.nii.gz")
    nifti.write(mask_on(oblique(), dtype=np.uint8), tmp_path / "b.nii.gz")
    data = (tmp_path / "a.nii.gz").read_bytes()
    assert data == (tmp_path / "b.nii.gz").read_bytes()
    assert data[4:8] == bytes(4)
    assert gzip.decompress(data)[344:347] == b"n+1"


def test_a_grid_too_far_away_for_single_precision(tmp_path: Path) -> None:
    affine = oblique().affine.copy()
    affine[:3, 3] += 123456.789
    with pytest.raises(ExportError) as caught:
        nifti.write(mask_on(Geometry(SHAPE, affine)), tmp_path / "m.nii.gz")
    assert caught.value.code == "format"
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.nii.gz"
    path.write_bytes(b"before")

    def full_disk(self: Path, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        nifti.write(mask_on(oblique()), path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.nii.gz"]
    assert path.read_bytes() == b"before"


def test_says_that_voxels_are_labels(tmp_path: Path) -> None:
    nifti.write(mask_on(oblique()), tmp_path / "m.nii.gz")
    header = nibabel.load(tmp_path / "m.nii.gz").header
    # NIFTI_INTENT_LABEL of nifti1.h.
    assert int(header["intent_code"]) == 1002
