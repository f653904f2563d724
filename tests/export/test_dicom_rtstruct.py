from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.outlined_shapes import AXIAL, CORONAL, SAGITTAL, SHAPE, shapes
from tests.helpers.scans import LABELS, OBLIQUE, blobs, nested, scan_from, write_series
from volseg.errors import ExportError
from volseg.export import dicom_rtstruct
from volseg.export.dicom_rtstruct import Holes
from volseg.geometry import Geometry
from volseg.labels.rtstruct import read_rtstruct
from volseg.volume import Label, LabelVolume, Source, Volume


def volume_of(mask: LabelVolume) -> Volume:
    return Volume(np.zeros(mask.geometry.shape, np.int16), mask.geometry, mask.source)


def series(folder: Path, orientation: tuple[float, ...] = OBLIQUE, **changes: Any) -> tuple[Geometry, Source]:
    folder.mkdir(exist_ok=True)
    return scan_from(write_series(folder, SHAPE, orientation, **changes))


def written(mask: LabelVolume, path: Path, holes: Holes = "keyhole") -> pydicom.Dataset:
    dicom_rtstruct.write(mask, path, holes=holes)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("holes", ["keyhole", "xor"])
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
def test_filling_the_contours_gives_every_voxel_back(
    tmp_path: Path, orientation: tuple[float, ...], holes: Holes
) -> None:
    geometry, source = series(tmp_path / "series", orientation)
    mask = LabelVolume(shapes(), geometry, LABELS, source)
    dicom_rtstruct.write(mask, tmp_path / "mask.rtstruct.dcm", holes=holes)
    found = read_rtstruct(tmp_path / "mask.rtstruct.dcm", volume_of(mask))
    np.testing.assert_array_equal(found.array, mask.array)
    assert [(label.value, label.name, label.colour, label.code) for label in found.labels] == [
        (label.value, label.name, label.colour, label.code) for label in LABELS
    ]


@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.1, 0.4, 0.6, 0.9]))
def test_any_mask(tmp_path_factory: pytest.TempPathFactory, seed: int, share: float) -> None:
    folder = tmp_path_factory.mktemp("any")
    geometry, source = series(folder / "series")
    random = np.random.default_rng(seed)
    array = (random.integers(1, 3, SHAPE) * (random.random(SHAPE) < share)).astype(np.uint8)
    mask = LabelVolume(array, geometry, LABELS, source)
    dicom_rtstruct.write(mask, folder / "mask.dcm")
    np.testing.assert_array_equal(read_rtstruct(folder / "mask.dcm", volume_of(mask)).array, array)


def test_points_lie_in_the_images_planes_within_the_voxels(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series", OBLIQUE)
    array = np.zeros(SHAPE, np.uint8)
    array[4, 6, 3] = 1
    mask = LabelVolume(array, geometry, LABELS, source)
    [contour] = written(mask, tmp_path / "m.dcm").ROIContourSequence[0].ContourSequence
    assert (contour.ContourGeometricType, contour.NumberOfContourPoints) == ("CLOSED_PLANAR", 4)
    # The image at k = 3 by the standard's formula: columns are 0.75 mm apart, rows 1.5 mm.
    [image] = contour.ContourImageSequence
    assert source.dicom is not None
    assert image.ReferencedSOPInstanceUID == source.dicom.instances[3].sop_instance_uid
    header = pydicom.dcmread(source.dicom.instances[3].path)
    origin = np.array(header.ImagePositionPatient, float)
    x, y = np.array(OBLIQUE).reshape(2, 3)
    corners = [(4 + i, 6 + j) for i, j in ((-0.48, -0.48), (0.48, -0.48), (0.48, 0.48), (-0.48, 0.48))]
    expected = np.array([origin + 0.75 * i * x + 1.5 * j * y for i, j in corners])
    found = np.array(contour.ContourData, float).reshape(-1, 3)
    order = [int(np.linalg.norm(found - point, axis=1).argmin()) for point in expected]
    assert sorted(order) == [0, 1, 2, 3]
    np.testing.assert_allclose(found[order], expected, atol=5e-4)


def test_corners_only_one_contour_an_outline_and_numbers_that_planning_systems_take(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series")
    array = np.zeros(SHAPE, np.uint8)
    array[1:9, 1:7, 1] = 1
    array[3:5, 3:5, 1] = 0
    mask = LabelVolume(array, geometry, LABELS, source)
    keyhole = written(mask, tmp_path / "k.dcm").ROIContourSequence[0].ContourSequence
    # Four corners, four of the hole, and both ends of the channel twice.
    assert [contour.NumberOfContourPoints for contour in keyhole] == [12]
    xor = written(mask, tmp_path / "x.dcm", "xor").ROIContourSequence[0].ContourSequence
    assert [(c.ContourGeometricType, c.NumberOfContourPoints) for c in xor] == [("CLOSEDPLANAR_XOR", 4)] * 2
    for contour in (*keyhole, *xor):
        assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints
        assert max(len(number.original_string) for number in contour.ContourData) <= 16


def test_says_what_it_is_and_what_it_was_made_from(tmp_path: Path) -> None:
    mask = blobs(*series(tmp_path / "series"))
    assert dicom_rtstruct.write(mask, tmp_path / "m.dcm") == ()
    found, dicom = pydicom.dcmread(tmp_path / "m.dcm"), mask.source.dicom
    assert dicom is not None
    assert (found.Modality, found.SeriesNumber, found.PatientID, found.StudyTime) == ("RTSTRUCT", 2003, "T1", "101112")
    assert (found.StudyInstanceUID, found.FrameOfReferenceUID) == (dicom.study_uid, dicom.frame_of_reference_uid)
    [frame] = found.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == dicom.frame_of_reference_uid
    [referenced] = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == dicom.series_uid
    assert [item.ReferencedSOPInstanceUID for item in referenced.ContourImageSequence] == [
        instance.sop_instance_uid for instance in dicom.instances
    ]
    assert [(roi.ROINumber, roi.ROIName) for roi in found.StructureSetROISequence] == [
        (1, LABELS[0].name),
        (2, LABELS[1].name),
    ]
    assert [list(roi.ROIDisplayColor) for roi in found.ROIContourSequence] == [[230, 60, 50], [40, 120, 250]]
    assert found.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0].CodeValue == "5366008"


def test_the_same_mask_has_the_same_uids_and_another_has_others(tmp_path: Path) -> None:
    mask = blobs(*series(tmp_path / "series"))
    other = mask.array.copy()
    other[0, 0, 0] = 1
    uids = [
        (found.SOPInstanceUID, found.SeriesInstanceUID)
        for found in (
            written(mask, tmp_path / "a.dcm"),
            written(mask, tmp_path / "b.dcm"),
            written(mask.with_array(other), tmp_path / "c.dcm"),
            written(mask, tmp_path / "d.dcm", "xor"),
        )
    ]
    assert uids[0] == uids[1]
    # Another mask is another instance of the same series; told in another way, of another one.
    assert [len({pair[n] for pair in uids}) for n in (0, 1)] == [3, 2]
    assert uids[0][1] == uids[2][1]


def test_names_are_unique_short_and_free_of_backslashes(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series")
    names = ["x" * 200, "x" * 199 + "y", "Läsion", "läsion", "a\\b", "\n"]
    labels = tuple(Label(value=value, name=name, colour=(9, 9, 9)) for value, name in enumerate(names, start=1))
    array = np.zeros(SHAPE, np.uint8)
    array[1:7, 2, 2] = range(1, 7)
    mask = LabelVolume(array, geometry, labels, source)
    notes = dicom_rtstruct.write(mask, tmp_path / "m.dcm")
    regions = pydicom.dcmread(tmp_path / "m.dcm").StructureSetROISequence
    assert [region.ROIName for region in regions] == [
        "x" * 64,
        "x" * 60 + " (2)",
        "Läsion",
        "läsion (4)",
        "a/b",
        "unnamed",
    ]
    assert len(notes) == 5
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "m.dcm", volume_of(mask)).array, array)


def test_a_label_that_does_not_occur_is_a_region_without_contours(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series")
    for array in (np.zeros(SHAPE, np.uint8), (np.indices(SHAPE)[0] == 3) * np.uint8(2)):
        mask = LabelVolume(array, geometry, LABELS, source)
        found = written(mask, tmp_path / "m.dcm")
        assert [region.ROIName for region in found.StructureSetROISequence] == [label.name for label in LABELS]
        assert ["ContourSequence" in item for item in found.ROIContourSequence] == [False, bool(array.any())]
        np.testing.assert_array_equal(read_rtstruct(tmp_path / "m.dcm", volume_of(mask)).array, array)


def test_a_contour_of_more_numbers_than_explicit_elements_hold(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    geometry, source = scan_from(write_series(folder, (120, 121, 2)))
    array = np.zeros(geometry.shape, np.uint8)
    # A comb: one outline with many corners.
    array[::2, 1:, 0] = array[:, 0, 0] = 1
    array[:, :, 1] = 1
    array[1::2, 1::2, 1] = 0
    mask = LabelVolume(array, geometry, LABELS, source)
    contours = written(mask, tmp_path / "m.dcm").ROIContourSequence[0].ContourSequence
    assert max(len(contour.ContourData) for contour in contours) > 2**16 / 8
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "m.dcm", volume_of(mask)).array, array)


def refused(mask: LabelVolume, path: Path) -> ExportError:
    with pytest.raises(ExportError) as caught:
        dicom_rtstruct.write(mask, path)
    assert not path.exists()
    assert not list(path.parent.glob(".*.part"))
    return caught.value


def test_refusals(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series")
    mask, path = blobs(geometry, source), tmp_path / "m.dcm"
    assert refused(LabelVolume(mask.array, geometry, LABELS), path).code == "no-source-series"
    assert refused(LabelVolume(mask.array, geometry, (), source), path).code == "format"
    assert refused(LabelVolume(mask.array, geometry, LABELS[:1], source), path).code == "format"
    shorter = Geometry((12, 9, 4), geometry.affine)
    assert refused(LabelVolume(mask.array[..., :4], shorter, LABELS, source), path).code == "grid-mismatch"
    flipped = Geometry(SHAPE, geometry.affine @ np.diag([1.0, 1.0, -1.0, 1.0]))
    assert refused(LabelVolume(mask.array, flipped, LABELS, source), path).code == "grid-mismatch"


def test_without_a_frame_of_reference_it_is_refused(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series", FrameOfReferenceUID="")
    error = refused(blobs(geometry, source), tmp_path / "m.dcm")
    assert error.code == "no-identity"
    assert "--repair-uids" in str(error)


def test_numbers_too_long_for_dicom_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path, SHAPE, AXIAL, PixelSpacing=[1e-5, 1e-5])
    for path in paths:
        header = pydicom.dcmread(path)
        header.ImagePositionPatient = [1e7, *header.ImagePositionPatient[1:]]
        header.save_as(path)
    error = refused(blobs(*scan_from(paths)), tmp_path / "m.dcm")
    assert error.code == "format"
    assert "16 characters" in str(error)


def test_regions_overlap_where_labels_do(tmp_path: Path) -> None:
    geometry, source = series(tmp_path / "series")
    mask = nested(geometry, source)
    written(mask, tmp_path / "mask.rtstruct.dcm")
    # Each region alone: read together, they are painted over each other.
    for label in mask.labels:
        alone = mask.only((label,)).with_array(mask.voxels_of(label) * np.uint8(label.value))
        written(alone, tmp_path / f"{label.value}.dcm")
    both = pydicom.dcmread(tmp_path / "mask.rtstruct.dcm").ROIContourSequence
    for label, region in zip(mask.labels, both, strict=True):
        (own,) = pydicom.dcmread(tmp_path / f"{label.value}.dcm").ROIContourSequence
        assert own.ContourSequence == region.ContourSequence
        found = read_rtstruct(tmp_path / f"{label.value}.dcm", volume_of(mask))
        assert np.array_equal(found.array != 0, mask.voxels_of(label))
    painted = written(mask.with_array(mask.array), tmp_path / "painted.dcm")
    assert painted.SOPInstanceUID != pydicom.dcmread(tmp_path / "mask.rtstruct.dcm").SOPInstanceUID
