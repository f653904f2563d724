from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from tests.helpers import dicom_files
from tests.helpers.scans import LABELS, blobs, scan_from, write_series
from volseg.errors import ExportError, GeometryError, UsageError
from volseg.export.save import save
from volseg.geometry import AxisMap, Geometry, ras_from_lps
from volseg.loaders import load
from volseg.volume import LabelVolume, Volume


@pytest.fixture
def scan(tmp_path: Path) -> Volume:
    geometry, source = scan_from(write_series(tmp_path))
    return Volume(np.zeros(geometry.shape, np.int16), geometry, source)


def mask_of(scan: Volume) -> LabelVolume:
    return LabelVolume(blobs(scan.geometry, scan.source).array, scan.geometry, LABELS)


def test_the_ending_chooses(tmp_path: Path, scan: Volume) -> None:
    mask = blobs(scan.geometry, scan.source)
    for name in ("m.nii", "m.nii.gz", "M.NII.GZ"):
        save(mask, tmp_path / name)
        np.testing.assert_array_equal(np.asanyarray(nibabel.load(tmp_path / name).dataobj), mask.array)
    save(mask, str(tmp_path / "m.dcm"))
    assert pydicom.dcmread(tmp_path / "m.dcm").Modality == "SEG"


@pytest.mark.parametrize("name", ["m.mhx", "m", "m.gz", "nii"])
def test_an_ending_of_no_format(tmp_path: Path, scan: Volume, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.nii, \.nii\.gz, \.dcm"):
        save(mask_of(scan), tmp_path / name)


def test_a_folder_that_does_not_exist(tmp_path: Path, scan: Volume) -> None:
    with pytest.raises(UsageError, match="no folder"):
        save(mask_of(scan), tmp_path / "absent" / "m.nii.gz")


def test_like_gives_the_series(tmp_path: Path, scan: Volume) -> None:
    with pytest.raises(ExportError):
        save(mask_of(scan), tmp_path / "m.dcm")
    save(replace(mask_of(scan), algorithm="hippocampus 1.0"), tmp_path / "m.dcm", like=scan)
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    (algorithm,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "volseg hippocampus 1.0"
    assert scan.source.dicom is not None
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == scan.source.dicom.series_uid


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SRA", "PIL"])
def test_like_turns_a_mask_that_is_stored_otherwise(tmp_path: Path, scan: Volume, orientation: str) -> None:
    mask = mask_of(scan)
    axes = AxisMap.between(scan.geometry.orientation, orientation)
    turned = LabelVolume(axes.apply(mask.array), mask.geometry.turned(axes), LABELS)
    save(turned, tmp_path / "m.nii.gz", like=scan)
    save(turned, tmp_path / "m.dcm", like=scan)
    image = nibabel.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), mask.array)
    np.testing.assert_allclose(image.affine, scan.geometry.affine, atol=1e-4)
    frames = pydicom.dcmread(tmp_path / "m.dcm").pixel_array.reshape(2, *mask.array.T.shape)
    np.testing.assert_array_equal(frames[0] + 2 * frames[1], mask.array.T)


def test_like_on_another_grid(tmp_path: Path, scan: Volume) -> None:
    shifted = scan.geometry.affine.copy()
    shifted[0, 3] += 0.5
    mask = LabelVolume(mask_of(scan).array, Geometry(scan.geometry.shape, shifted), LABELS)
    with pytest.raises(GeometryError) as caught:
        save(mask, tmp_path / "m.nii.gz", like=scan)
    assert caught.value.code == "grid-mismatch"
    assert not (tmp_path / "m.nii.gz").exists()


def test_like_a_series_with_a_tilt(tmp_path: Path) -> None:
    affine = dicom_files.sheared(dicom_files.lps_affine(), 10)
    dicom_files.write_series(tmp_path / "series", affine=affine)
    array = (dicom_files.voxels() > 20).astype(np.uint8)
    mask = LabelVolume(array, Geometry(array.shape, ras_from_lps(affine)), LABELS[:1])
    save(mask, tmp_path / "m.dcm", like=load(tmp_path / "series", resample_tilt=True))
    frames = pydicom.dcmread(tmp_path / "m.dcm").PerFrameFunctionalGroupsSequence
    positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames]
    np.testing.assert_allclose(positions, [affine[:3] @ [0, 0, k, 1] for k in range(3)], atol=1e-6)
