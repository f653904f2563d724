from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from tests.helpers.scans import LABELS, scan_from, write_series
from volseg.errors import ExportError
from volseg.export import colours, dicom_sr, table
from volseg.export.measures import measure
from volseg.export.outputs import FinishedCase, named
from volseg.geometry import Geometry
from volseg.loaders import find
from volseg.results.case import ModelIdentity
from volseg.volume import Label, LabelVolume

THIRD = Label(value=7, name='=not "there"', colour=(1, 2, 3))


@pytest.fixture
def case(tmp_path: Path) -> FinishedCase:
    """A CT whose values are their places' numbers, a label of four voxels, one of one voxel, and one that is absent."""
    (tmp_path / "series").mkdir()
    paths = write_series(tmp_path / "series", (5, 7, 4), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    (candidate,) = find(tmp_path / "series").candidates
    scan = candidate.load()
    geometry, _ = scan_from(paths)
    scan = scan.with_array(np.arange(140, dtype=np.int16).reshape(geometry.shape))
    array = np.zeros(geometry.shape, np.uint8)
    array[1, 2, :] = 1  # values 36 to 39
    array[4, 6, 3] = 2  # 139
    mask = LabelVolume(array, scan.geometry, (*LABELS, THIRD), scan.source, "box 1.0")
    model = ModelIdentity(name="box", version="1.0", sha256="ab" * 32)
    return FinishedCase(candidate=candidate, scan=scan, mask=mask, labels=(), maps=None, model=model)


def test_measures_worked_out_by_hand(case: FinishedCase) -> None:
    first, second, third = measure(case.mask, case.scan)
    # A voxel is 0.75 x 1.5 x 2.5 mm.
    assert first.voxels == 4
    assert first.volume_ml == pytest.approx(4 * 2.8125e-3)
    assert first.values is not None
    assert (first.values.mean, first.values.minimum, first.values.maximum) == (37.5, 36, 39)
    assert first.values.sd == pytest.approx(1.25**0.5)
    assert second.values is not None
    assert (second.voxels, second.values.mean, second.values.sd) == (1, 139, 0)
    assert (third.voxels, third.volume_ml, third.values) == (0, 0, None)


def test_of_channels_the_first_and_on_another_grid_volumes_alone(case: FinishedCase) -> None:
    channels = replace(case.scan, array=np.stack([case.scan.array, np.zeros_like(case.scan.array)]))
    first, *_ = measure(case.mask, channels)
    assert first.values is not None
    assert first.values.mean == 37.5
    moved = case.scan.geometry.affine.copy()
    moved[0, 3] += 1
    first, *_ = measure(case.mask, replace(case.scan, geometry=Geometry(case.scan.geometry.shape, moved)))
    assert (first.voxels, first.values) == (4, None)


def test_the_table(case: FinishedCase, tmp_path: Path) -> None:
    table.write_output(case, tmp_path)
    content = (tmp_path / "volumes.csv").read_text(encoding="utf-8-sig")
    first, second, third = csv.DictReader(io.StringIO(content))
    assert (first["name"], first["volume_ml"], first["mean"], first["sd"]) == (
        LABELS[0].name,
        "0.01125",
        "37.5",
        "1.11803",
    )
    assert (second["value"], second["voxels"], second["maximum"]) == ("2", "1", "139")
    # A spreadsheet would take it for a formula.
    assert (third["name"], third["voxels"], third["mean"]) == ("'" + THIRD.name, "0", None)


def test_tables_of_colours(case: FinishedCase, tmp_path: Path) -> None:
    colours.write_output(case, tmp_path)
    lines = (tmp_path / colours.ITKSNAP).read_text().splitlines()
    rows = [line.split(maxsplit=7) for line in lines if not line.startswith("#")]
    assert [row[:4] for row in rows] == [
        ["0"] * 4,
        ["1", "230", "60", "50"],
        ["2", "40", "120", "250"],
        ["7", "1", "2", "3"],
    ]
    assert [row[7] for row in rows[1:]] == ['"anterior hippocampus"', '"posterior hippocampus"', "\"=not 'there'\""]
    rows = [line.split() for line in (tmp_path / colours.SLICER).read_text().splitlines()[1:]]
    assert rows[1] == ["1", "anterior_hippocampus", "230", "60", "50", "255"]
    assert named()["colours"].own(tmp_path) == [colours.ITKSNAP, colours.SLICER]


def test_the_report_read_by_highdicom(case: FinishedCase, tmp_path: Path) -> None:
    named()["seg"].write(case, tmp_path)
    named()["sr"].write(case, tmp_path)
    report = highdicom.sr.srread(tmp_path / "report.sr.dcm")
    assert (report.Modality, report.SeriesNumber, report.CompletionFlag, report.PatientID) == (
        "SR",
        3003,
        "COMPLETE",
        "T1",
    )
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [label.name for label in LABELS]
    segmentation = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    for number, group in enumerate(groups, start=1):
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber == number
        assert group.tracking_uid == segmentation.SegmentSequence[number - 1].TrackingUID
        assert group.finding_type.value == "5366008"
        assert group.finding_sites[0].topographical_modifier.meaning in ("Anterior", "Posterior")
    found = [
        (m.name.meaning, m.derivation and m.derivation.meaning, m.value, m.unit.value)
        for m in groups[0].get_measurements()
    ]
    assert found == [
        ("Volume", None, 0.01125, "cm3"),
        ("Attenuation Coefficient", "Mean", 37.5, "[hnsf'U]"),
        ("Attenuation Coefficient", "Standard Deviation", 1.11803, "[hnsf'U]"),
        ("Attenuation Coefficient", "Minimum", 36, "[hnsf'U]"),
        ("Attenuation Coefficient", "Maximum", 39, "[hnsf'U]"),
    ]


def test_a_report_refers_to_a_label_map_where_there_is_no_seg(case: FinishedCase, tmp_path: Path) -> None:
    named()["labelmap"].write(case, tmp_path)
    dicom_sr.write_output(case, tmp_path)
    evidence = pydicom.dcmread(tmp_path / "report.sr.dcm").CurrentRequestedProcedureEvidenceSequence[0]
    referred = {i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    assert pydicom.dcmread(tmp_path / "mask.labelmap.dcm").SOPInstanceUID in referred
    assert len(referred) == 5


def test_a_report_without_a_seg_and_of_an_empty_mask(case: FinishedCase, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="seg,sr"):
        dicom_sr.write_output(case, tmp_path)
    assert not (tmp_path / "report.sr.dcm").exists()
    empty = replace(case, mask=case.mask.with_array(np.zeros_like(case.mask.array)))
    named()["seg"].write(empty, tmp_path)
    dicom_sr.write_output(empty, tmp_path)
    groups = highdicom.sr.srread(tmp_path / "report.sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert [[found.value for found in group.get_measurements()] for group in groups] == [[0], [0], [0]]


def test_the_same_case_has_the_same_uids(case: FinishedCase, tmp_path: Path) -> None:
    uids = []
    for _ in range(2):
        named()["seg"].write(case, tmp_path)
        named()["sr"].write(case, tmp_path)
        uids.append(pydicom.dcmread(tmp_path / "report.sr.dcm").SOPInstanceUID)
    assert uids[0] == uids[1]
