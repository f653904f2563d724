from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.helpers.scans import blobs, write_series
from volseg.export.outputs import OUTPUTS, FinishedCase, named
from volseg.loaders import find
from volseg.results.case import ModelIdentity


@pytest.fixture
def case(tmp_path: Path) -> FinishedCase:
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "series", (20, 24, 6))
    (candidate,) = find(tmp_path / "series").candidates
    scan = candidate.load()
    mask = blobs(scan.geometry, scan.source)
    return FinishedCase(candidate=candidate, scan=scan, mask=mask, labels=(), maps=None, model=ModelIdentity(name="m"))


def test_the_page_is_the_preview_in_the_sources_study(case: FinishedCase, tmp_path: Path) -> None:
    named()["sc"].write(case, tmp_path)
    next(output for output in OUTPUTS if output.name == "preview").write(case, tmp_path)
    page = pydicom.dcmread(tmp_path / "summary.sc.dcm")
    np.testing.assert_array_equal(page.pixel_array, np.asarray(Image.open(tmp_path / "preview.png")))
    dicom = case.scan.source.dicom
    assert dicom is not None
    assert (page.StudyInstanceUID, page.PatientID, page.SeriesNumber) == (dicom.study_uid, "T1", 4003)
    assert page.SeriesInstanceUID != dicom.series_uid
    uid = page.SOPInstanceUID
    named()["sc"].write(case, tmp_path)
    assert pydicom.dcmread(tmp_path / "summary.sc.dcm").SOPInstanceUID == uid
