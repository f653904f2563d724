"""dcmqi's segimage2itkimage reads a SEG: equal voxels in equal places, whatever the orientation and the kind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from tests.conftest import ROOT
from tests.helpers.scans import LABELS, OBLIQUE, blobs, scan_from, write_series
from volseg.export import dicom_seg
from volseg.export.outputs import FinishedCase, named
from volseg.geometry import ras_from_lps
from volseg.loaders import find
from volseg.results.case import ModelIdentity
from volseg.volume import Label, LabelVolume

pytestmark = pytest.mark.readers

PROGRAM = ROOT / ".venv-readers" / "bin" / "segimage2itkimage"
AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)


def read_by_dcmqi(path: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Points (N, 3) in RAS mm with a segment, the segment's number of each, and the segments' names."""
    assert PROGRAM.exists(), f"{PROGRAM} is absent; bash .ci/readers makes it"
    folder.mkdir()
    command: list[str | Path] = [
        PROGRAM,
        "--inputDICOM",
        path,
        "--outputDirectory",
        folder,
        "--outputType",
        "nrrd",
        "--prefix",
        "s",
    ]
    subprocess.run(command, check=True, capture_output=True)
    points, numbers = [], []
    for file in folder.glob("*.nrrd"):
        image = SimpleITK.ReadImage(str(file))
        voxels = SimpleITK.GetArrayFromImage(image).T
        for index in np.argwhere(voxels):
            points.append(ras_from_lps(np.array(image.TransformIndexToPhysicalPoint([int(n) for n in index]))))
            numbers.append(int(voxels[tuple(index)]))
    (meta,) = folder.glob("*.json")
    names = {}
    for group in json.loads(meta.read_text())["segmentAttributes"]:
        names.update({segment["labelID"]: segment["SegmentLabel"] for segment in group})
    return np.array(points).reshape(-1, 3), np.array(numbers), [names[number] for number in sorted(names)]


def many(mask: LabelVolume) -> LabelVolume:
    labels = tuple(Label(value=value, name=f"structure {value}", colour=(value, 9, 9)) for value in range(1, 119))
    array = (np.arange(mask.array.size).reshape(mask.array.shape) * 7 % 119).astype(np.uint8)
    return LabelVolume(array, mask.geometry, labels, mask.source)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("apart_mm", [0.75, 6.5])
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("labels", [1, 2, 118])
def test_equal_voxels_in_equal_places(
    tmp_path: Path,
    kind: dicom_seg.Kind,
    apart_mm: float,
    orientation: tuple[float, ...],
    backwards: bool,
    labels: int,
) -> None:
    (tmp_path / "series").mkdir()
    paths = write_series(tmp_path / "series", (8, 6, 4), orientation)
    normal = np.cross(*np.array(orientation).reshape(2, 3))
    for k, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        along = (len(paths) - k if backwards else k) * apart_mm
        dataset.ImagePositionPatient = [round(float(v), 6) for v in np.array([10.0, -20.0, 30.0]) + along * normal]
        dataset.save_as(path)
    mask = blobs(*scan_from(paths), LABELS[:labels])
    if labels == 118:
        mask = many(mask)
    dicom_seg.write(mask, tmp_path / "m.dcm", kind=kind)
    points, numbers, names = read_by_dcmqi(tmp_path / "m.dcm", tmp_path / "out")
    indices = np.argwhere(mask.array)
    expected = {(*index, int(mask.array[tuple(index)])) for index in indices.tolist()}
    found = mask.geometry.world_to_voxel(points)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
    assert {(*map(int, np.rint(place)), number) for place, number in zip(found, numbers, strict=True)} == expected
    assert len(points) == len(indices)
    assert names == [label.name for label in mask.labels]


def test_tid1500reader(tmp_path: Path) -> None:
    program = PROGRAM.with_name("tid1500reader")
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "series", (8, 6, 4), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    (candidate,) = find(tmp_path / "series").candidates
    scan = candidate.load()
    mask = blobs(scan.geometry, scan.source)
    model = ModelIdentity(name="box", version="1.0", sha256="ab" * 32)
    case = FinishedCase(candidate=candidate, scan=scan, mask=mask, labels=(), maps=None, model=model)
    for name in ("seg", "sr"):
        named()[name].write(case, tmp_path)
    out = tmp_path / "report.json"
    command: list[str | Path] = [program, "--inputDICOM", tmp_path / "report.sr.dcm", "--outputMetadata", out]
    subprocess.run(command, check=True, capture_output=True)
    groups = json.loads(out.read_text())["Measurements"]
    uid = pydicom.dcmread(tmp_path / "mask.seg.dcm").SOPInstanceUID
    voxel_ml = mask.geometry.voxel_volume_ml
    for number, (label, group) in enumerate(zip(LABELS, groups, strict=True), start=1):
        assert (group["TrackingIdentifier"], group["ReferencedSegment"]) == (label.name, number)
        assert group["segmentationSOPInstanceUID"] == uid
        assert group["Finding"]["CodeValue"] == "5366008"
        volume, mean, *_ = group["measurementItems"]
        assert volume["quantity"]["CodeMeaning"] == "Volume"
        assert float(volume["value"]) == pytest.approx(np.count_nonzero(mask.array == number) * voxel_ml, abs=1e-6)
        assert mean["derivationModifier"]["CodeMeaning"] == "Mean"
        assert float(mean["value"]) == 0
