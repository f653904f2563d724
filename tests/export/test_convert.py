from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from tests.helpers.scans import LABELS, blobs, scan_from, write_series
from volseg.errors import GeometryError, UsageError
from volseg.export import dicom_rtstruct, dicom_seg, nifti, nrrd
from volseg.export.convert import convert
from volseg.geometry import AxisMap, ras_from_lps
from volseg.volume import LabelVolume


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    write_series(folder, (12, 9, 5))
    return folder


@pytest.fixture
def mask(series: Path) -> LabelVolume:
    return blobs(*scan_from(series.iterdir()))


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.mark.parametrize(
    ("name", "like"), [("m.dcm", True), ("m.rtstruct.dcm", True), ("m.seg.nrrd", False), ("m.mha", False)]
)
def test_a_mask_there_and_back(tmp_path: Path, series: Path, mask: LabelVolume, name: str, like: bool) -> None:
    nifti.write(mask, tmp_path / "mask.nii.gz")
    scan = series if like else None
    # SEG and RTSTRUCT leave out a voxel whose value no label names: LABELS names both.
    convert(tmp_path / "mask.nii.gz", tmp_path / name, like=scan, labels=LABELS)
    convert(tmp_path / name, tmp_path / "back.nii.gz", like=scan)
    np.testing.assert_array_equal(voxels(tmp_path / "back.nii.gz"), mask.array)
    np.testing.assert_allclose(nibabel.load(tmp_path / "back.nii.gz").affine, mask.geometry.affine, atol=1e-4)


def test_names_codes_and_colours_go_from_seg_to_slicer_and_rtstruct(
    tmp_path: Path, series: Path, mask: LabelVolume
) -> None:
    dicom_seg.write(mask, tmp_path / "m.dcm")
    convert(tmp_path / "m.dcm", tmp_path / "m.seg.nrrd", like=series)
    header = (tmp_path / "m.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert "Segment1_Name:=posterior hippocampus" in header
    assert "SCT^5366008^Hippocampus~SCT^255551008^Posterior" in header
    convert(tmp_path / "m.dcm", tmp_path / "m.rtstruct.dcm", like=series)
    regions = pydicom.dcmread(tmp_path / "m.rtstruct.dcm").StructureSetROISequence
    assert [region.ROIName for region in regions] == [label.name for label in LABELS]


def test_from_rtstruct_to_seg(tmp_path: Path, series: Path, mask: LabelVolume) -> None:
    dicom_rtstruct.write(mask, tmp_path / "m.rtstruct.dcm")
    convert(tmp_path / "m.rtstruct.dcm", tmp_path / "m.dcm", like=series)
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == [label.name for label in LABELS]
    frames = seg.pixel_array.reshape(2, *mask.array.T.shape)
    np.testing.assert_array_equal(frames[0] + 2 * frames[1], mask.array.T)


@pytest.mark.parametrize("orientation", ["RAS", "PIL"])
def test_a_mask_stored_otherwise_is_turned_onto_its_scan(
    tmp_path: Path, series: Path, mask: LabelVolume, orientation: str
) -> None:
    axes = AxisMap.between(mask.geometry.orientation, orientation)
    turned = LabelVolume(axes.apply(mask.array), mask.geometry.turned(axes), LABELS)
    nrrd.write(turned, tmp_path / "m.seg.nrrd")
    convert(tmp_path / "m.seg.nrrd", tmp_path / "back.nii.gz", like=series)
    np.testing.assert_array_equal(voxels(tmp_path / "back.nii.gz"), mask.array)


@pytest.mark.parametrize("name", ["s.nii.gz", "s.nrrd", "s.mha"])
def test_a_scan_is_written_voxel_for_voxel(tmp_path: Path, name: str) -> None:
    (tmp_path / "series").mkdir()
    paths = write_series(tmp_path / "series")
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = (np.arange(35, dtype=np.uint16) + 100 * number).tobytes()
        dataset.save_as(path)
    convert(tmp_path / "series", tmp_path / name)
    names = [str(instance.path) for instance in scan_from(paths)[1].dicom.instances]  # type: ignore[union-attr]
    expected, found = SimpleITK.ReadImage(names), SimpleITK.ReadImage(str(tmp_path / name))
    points = [(0, 0, 0), (4, 0, 0), (0, 6, 0), (4, 6, 3)]
    places = [expected.TransformIndexToPhysicalPoint(point) for point in points]
    assert [found[found.TransformPhysicalPointToIndex(place)] for place in places] == [expected[p] for p in points]
    assert sorted(SimpleITK.GetArrayFromImage(found).ravel()) == sorted(SimpleITK.GetArrayFromImage(expected).ravel())


def test_a_scan_of_channels(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5, 2)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "s.nii.gz")
    convert(tmp_path / "s.nii.gz", tmp_path / "s.nrrd")
    image = SimpleITK.ReadImage(str(tmp_path / "s.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), array.transpose(2, 1, 0, 3))
    np.testing.assert_allclose(ras_from_lps(np.array(image.TransformIndexToPhysicalPoint((2, 3, 4)))), [2, 6, 12])


def test_dicom_needs_its_scan(tmp_path: Path, mask: LabelVolume) -> None:
    dicom_seg.write(mask, tmp_path / "m.dcm")
    with pytest.raises(UsageError, match="--like"):
        convert(tmp_path / "m.dcm", tmp_path / "m.nii.gz")
    assert not (tmp_path / "m.nii.gz").exists()


def test_a_mask_of_another_scan(tmp_path: Path, series: Path, mask: LabelVolume) -> None:
    nifti.write(mask, tmp_path / "m.nii.gz")
    next(iter(sorted(series.iterdir()))).unlink()
    with pytest.raises(GeometryError) as caught:
        convert(tmp_path / "m.nii.gz", tmp_path / "m.dcm", like=series)
    assert caught.value.code == "grid-mismatch"
    assert not (tmp_path / "m.dcm").exists()


@pytest.mark.parametrize(
    ("out", "to", "match"),
    [("m.stl.txt", None, "no format"), ("m.dcm", "dcm", "no format dcm"), ("gone/m.dcm", "seg", "no folder")],
)
def test_calls_that_are_wrong(tmp_path: Path, mask: LabelVolume, out: str, to: str | None, match: str) -> None:
    nifti.write(mask, tmp_path / "m.nii.gz")
    with pytest.raises(UsageError, match=match):
        convert(tmp_path / "m.nii.gz", tmp_path / out, to=to)
