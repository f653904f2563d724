from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from tests.helpers.dciodvfy import findings
from tests.helpers.scans import LABELS, blobs, scan_from, write_series
from volseg.errors import ExportError
from volseg.export import dicom_fractional, dicom_multiframe
from volseg.export.outputs import FinishedCase, named
from volseg.loaders import find
from volseg.results.case import ModelIdentity
from volseg.volume import LabelVolume


@pytest.fixture
def mask(tmp_path: Path) -> LabelVolume:
    (tmp_path / "series").mkdir()
    return blobs(*scan_from(write_series(tmp_path / "series", (5, 7, 4))))


def steps(mask: LabelVolume) -> np.ndarray:
    """[label, i, j, k] numbers that are all different in a slice."""
    return (np.arange(2 * mask.array.size) % 251).astype(np.uint8).reshape(2, *mask.array.shape)


def written(mask: LabelVolume, path: Path) -> np.ndarray:
    values = steps(mask)
    # Slabs of three slices and of one.
    slabs = [part for each in values for part in (each[:, :, :3], each[:, :, 3:])]
    assert dicom_fractional.write(mask, LABELS, slabs, path) == ()
    return values


def test_probabilities_by_highdicom_and_pydicom(mask: LabelVolume, tmp_path: Path) -> None:
    values = written(mask, tmp_path / "m.dcm")
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    assert (seg.SegmentationType, seg.SegmentationFractionalType, seg.MaximumFractionalValue) == (
        "FRACTIONAL",
        "PROBABILITY",
        255,
    )
    np.testing.assert_array_equal(seg.pixel_array.reshape(2, 4, 7, 5), values.transpose(0, 3, 2, 1))
    read = highdicom.seg.segread(tmp_path / "m.dcm")
    assert [segment.SegmentLabel for segment in read.SegmentSequence] == [label.name for label in LABELS]
    dicom = mask.source.dicom
    assert dicom is not None
    found = read.get_pixels_by_source_instance([instance.sop_instance_uid for instance in dicom.instances])
    np.testing.assert_allclose(found, values.transpose(3, 2, 1, 0) / 255, atol=1e-6)


@pytest.mark.readers
def test_dciodvfy(mask: LabelVolume, tmp_path: Path) -> None:
    written(mask, tmp_path / "m.dcm")
    assert findings(tmp_path / "m.dcm") == []


def test_without_probabilities_and_with_too_many(
    mask: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (candidate,) = find(tmp_path / "series").candidates
    scan = candidate.load()
    case = FinishedCase(candidate=candidate, scan=scan, mask=mask, labels=(), maps=None, model=ModelIdentity(name="m"))
    with pytest.raises(ExportError, match="--probabilities"):
        named()["fractional"].write(case, tmp_path)
    monkeypatch.setattr(dicom_multiframe, "MOST_BYTES", 100)
    with pytest.raises(ExportError, match="8 frames"):
        dicom_fractional.write(mask, LABELS, [], tmp_path / "m.dcm")
    assert not (tmp_path / "m.dcm").exists()
