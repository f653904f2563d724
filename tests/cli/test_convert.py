from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.helpers.command import Command
from tests.helpers.scans import blobs, scan_from, write_series
from volseg.export import nifti


@pytest.fixture
def volseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_a_mask_with_the_names_of_a_model(volseg: Command, tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    mask = blobs(*scan_from(write_series(tmp_path / "series")))
    nifti.write(mask, tmp_path / "m.nii.gz")
    done = volseg(
        "convert", tmp_path / "m.nii.gz", "--like", tmp_path / "series", "--model", "hippocampus",
        "--to", "seg", "-o", tmp_path / "out.bin",
    )  # fmt: skip
    assert (done.code, done.out) == (0, "")
    seg = pydicom.dcmread(tmp_path / "out.bin")
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in seg.SegmentSequence]
    assert kinds == ["5366008", "5366008"]
    np.testing.assert_array_equal(seg.pixel_array.reshape(2, *mask.array.T.shape)[1], mask.array.T == 2)


def test_notes_go_to_stderr(volseg: Command, tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    mask = blobs(*scan_from(write_series(tmp_path / "series", without=("PatientBirthDate",))))
    nifti.write(mask, tmp_path / "m.nii.gz")
    done = volseg("convert", tmp_path / "m.nii.gz", "--like", tmp_path / "series", "-o", tmp_path / "m.dcm")
    assert (done.code, done.out) == (0, "")
    assert "PatientBirthDate is absent in the source" in done.err


def test_a_scan_that_is_not_there(volseg: Command, tmp_path: Path) -> None:
    done = volseg("convert", tmp_path / "gone.nii.gz", "-o", tmp_path / "m.nrrd")
    assert done.code == 2
    assert "gone.nii.gz" in done.err
