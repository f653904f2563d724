from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from numpy.testing import assert_array_equal

from volseg.loaders import find, load


def test_the_mr_series_is_the_nifti_crop(sample_data: Path) -> None:
    series = load(sample_data / "study" / "mr")
    crop = load(sample_data / "hippocampus" / "imagesTr" / "hippocampus_125.nii.gz")
    assert_array_equal(series.array, crop.array)
    assert_array_equal(series.geometry.affine, crop.geometry.affine)
    assert series.source.modality == "MR"


def test_the_ct_series_is_the_original(sample_data: Path, shared_data: Path) -> None:
    (sample,) = find(sample_data / "study" / "ct").candidates
    (original,) = find(shared_data / "dicom" / "ct_512").candidates
    assert sample.geometry is not None
    assert original.geometry is not None
    assert sample.geometry.same_grid(original.geometry, 0)
    for ours, theirs in zip(sample.files, original.files, strict=True):
        one, other = pydicom.dcmread(ours), pydicom.dcmread(theirs)
        for keyword in ("PixelData", "RescaleSlope", "RescaleIntercept", "BitsStored", "PixelRepresentation"):
            assert one[keyword].value == other[keyword].value


def test_both_are_usable_and_have_an_identity(sample_data: Path) -> None:
    study = find(sample_data / "study")
    assert [(candidate.modality, candidate.usable) for candidate in study.candidates] == [("CT", True), ("MR", True)]
    for candidate in study.candidates:
        source = candidate.load().source.dicom
        assert source is not None
        assert source.identity


@pytest.mark.parametrize("series", ["ct", "mr"])
def test_nothing_identifies_anybody(sample_data: Path, series: str) -> None:
    for path in sorted((sample_data / "study" / series).iterdir()):
        dataset = pydicom.dcmread(path)
        assert str(dataset.PatientName) == "volseg^sample"
        assert dataset.PatientID == f"SAMPLE-{series.upper()}"
        assert [element for element in dataset.iterall() if element.tag.is_private] == []
        for keyword in ("InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber", "SeriesDate"):
            assert keyword not in dataset
        # The scanner's own UIDs hold its serial number and the minute of the scan.
        uids = [element.value for element in dataset.iterall() if element.VR == "UI"]
        assert all(uid.startswith(("1.2.826.0.1.3680043.8.498.", "1.2.840.10008.")) for uid in uids)
        assert "SourceApplicationEntityTitle" not in dataset.file_meta


def test_the_script_makes_the_same_bytes_again(sample_data: Path, shared_data: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(sample_data / "make_study.py")]
    subprocess.run([*script, str(shared_data / "dicom" / "ct_512"), str(tmp_path)], check=True, capture_output=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.dcm"))
    assert len(made) == 59
    assert [
        path for path in made if (tmp_path / path).read_bytes() != (sample_data / "study" / path).read_bytes()
    ] == []
