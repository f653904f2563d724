"""dciodvfy (Debian's dicom3tools) checks a DICOM object against the standard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import dicom_files
from tests.helpers.dciodvfy import findings
from tests.helpers.dicom_files import lps_affine, rotation, sheared, voxels
from tests.helpers.dicom_objects import enhanced_mr, save, with_echoes
from tests.helpers.dicom_sources import mask_on
from tests.helpers.scans import LABELS, OBLIQUE, blobs, scan_from, write_series
from volseg.export import dicom_seg
from volseg.export.identity import repair_uids
from volseg.export.outputs import FinishedCase, named
from volseg.loaders import find
from volseg.results.case import ModelIdentity
from volseg.volume import Label, LabelVolume

pytestmark = pytest.mark.readers


def seg_of(mask: LabelVolume, folder: Path) -> Path:
    dicom_seg.write(mask, folder / "mask.seg.dcm")
    return folder / "mask.seg.dcm"


@pytest.mark.parametrize("series", ["12-T1post-05670", "13_HCropVolume"])
def test_of_a_real_study(shared_data: Path, tmp_path: Path, series: str) -> None:
    mask = blobs(*scan_from((shared_data / "dicom/study1" / series).iterdir()))
    assert findings(seg_of(mask, tmp_path)) == []
    assert findings(seg_of(mask.with_array(np.zeros_like(mask.array)), tmp_path)) == []


@pytest.mark.parametrize("limit", [0, dicom_seg.FULL_FRAMES_BYTES])
def test_of_loaded_ct_with_repaired_uids(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(dicom_seg, "FULL_FRAMES_BYTES", limit)
    (candidate,) = find(shared_data / "dicom/ct_512").candidates
    scan = repair_uids(candidate, tmp_path / "repaired").load()
    assert findings(seg_of(blobs(scan.geometry, scan.source), tmp_path)) == []


def test_of_labels_without_codes_and_of_one_label(tmp_path: Path) -> None:
    geometry, source = scan_from(write_series(tmp_path, orientation=OBLIQUE))
    plain = tuple(Label(value=value, name=f"Läsion {value}", colour=(200, 30, value)) for value in (4, 90))
    assert findings(seg_of(blobs(geometry, source, plain), tmp_path)) == []
    one = (replace(LABELS[0], modifier=None),)
    assert findings(seg_of(blobs(geometry, source, one), tmp_path)) == []


def test_of_a_source_without_its_type_2_attributes(tmp_path: Path) -> None:
    absent = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime")
    without = (*absent, "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "SliceThickness")
    mask = blobs(*scan_from(write_series(tmp_path, without=without)))
    assert findings(seg_of(mask, tmp_path)) == []


def test_of_one_echo_of_a_multi_frame_file(tmp_path: Path) -> None:
    affine = lps_affine(directions=rotation(20, -35, 50))
    dataset = with_echoes(voxels((5, 7, 4)), affine, [4.6, 92])
    file = save(dataset, tmp_path / "enhanced")
    for frames in ([0, 2, 4, 6], [1, 3, 5, 7]):
        mask = mask_on([(file, frame) for frame in frames], affine, (5, 7))
        assert findings(seg_of(mask, tmp_path)) == []


def test_of_a_whole_multi_frame_file_and_of_a_tilted_series(tmp_path: Path) -> None:
    affine = lps_affine()
    file = save(enhanced_mr(voxels((5, 7, 4)), affine), tmp_path / "enhanced")
    assert findings(seg_of(mask_on([(file, k) for k in range(4)], affine, (5, 7)), tmp_path)) == []
    leaning = sheared(affine, 12)
    paths = dicom_files.write_series(tmp_path / "ct", voxels((5, 7, 4)), leaning, modality="CT")
    assert findings(seg_of(mask_on([(path, None) for path in paths], leaning, (5, 7)), tmp_path)) == []


def test_an_error_is_seen(tmp_path: Path) -> None:
    import pydicom

    path = seg_of(blobs(*scan_from(write_series(tmp_path))), tmp_path)
    broken = pydicom.dcmread(path)
    del broken.SegmentSequence[0].SegmentAlgorithmType
    broken.save_as(path)
    assert findings(path) != []


def test_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "series")
    (candidate,) = find(tmp_path / "series").candidates
    scan = candidate.load()
    model = ModelIdentity(name="box", version="1.0", sha256="ab" * 32)
    mask = blobs(scan.geometry, scan.source)
    case = FinishedCase(candidate=candidate, scan=scan, mask=mask, labels=(), maps=None, model=model)
    for name in ("seg", "sr"):
        named()[name].write(case, tmp_path)
    assert findings(tmp_path / "report.sr.dcm", "Comprehensive3DSR") == []
