from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from tests.helpers.scans import LABELS, OBLIQUE, blobs, geometry_of, nested, scan_from, write_series
from tests.helpers.seg_points import points_by_pydicom, refused, sort_rows, world_points
from volseg.export import dicom_multiframe, dicom_seg
from volseg.geometry import Geometry, ras_from_lps
from volseg.volume import Code, DicomSource, Label, LabelVolume, Source

T1POST = "dicom/study1/12-T1post-05670"
HIPPOCROP = "dicom/study1/13_HCropVolume"


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "series"
    folder.mkdir()
    return write_series(folder)


@pytest.fixture
def mask(series: list[Path]) -> LabelVolume:
    return blobs(*scan_from(series))


@pytest.mark.parametrize(
    "orientation",
    [OBLIQUE, (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0), (0, 0, 1, -1, 0, 0)],
)
@pytest.mark.parametrize("shape", [(5, 7, 4), (8, 6, 3)])
@pytest.mark.parametrize("full", [True, False])
def test_every_voxel_is_where_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    orientation: tuple[float, ...],
    shape: tuple[int, int, int],
    full: bool,
) -> None:
    if not full:
        monkeypatch.setattr(dicom_seg, "FULL_FRAMES_BYTES", 0)
    mask = blobs(*scan_from(write_series(tmp_path, shape, orientation)))
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    found = points_by_pydicom(tmp_path / "mask.seg.dcm")
    for number in (1, 2):
        np.testing.assert_allclose(found[number], world_points(mask, number), atol=1e-4)
    frames = int(pydicom.dcmread(tmp_path / "mask.seg.dcm").NumberOfFrames)
    occupied = sum(int((mask.array == value).any(axis=(0, 1)).sum()) for value in (1, 2))
    assert frames == (2 * shape[2] if full else occupied)


@pytest.mark.parametrize("folder", [T1POST, HIPPOCROP])
def test_real_series_read_back_by_three_readers(shared_data: Path, tmp_path: Path, folder: str) -> None:
    mask = blobs(*scan_from((shared_data / folder).iterdir()))
    path = tmp_path / "mask.seg.dcm"
    dicom_seg.write(mask, path)

    for number, found in points_by_pydicom(path).items():
        np.testing.assert_allclose(found, world_points(mask, number), atol=1e-3)

    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    for number in (1, 2):
        indices = np.argwhere(volume.array == number)
        found = sort_rows(ras_from_lps(indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]))
        np.testing.assert_allclose(found, world_points(mask, number), atol=1e-3)

    image = SimpleITK.ReadImage(str(path))
    files = [str(instance.path) for instance in mask.source.dicom.instances] if mask.source.dicom else []
    scan = SimpleITK.ReadImage(files)
    assert image.GetSize() == (*scan.GetSize()[:2], 2 * scan.GetSize()[2])
    np.testing.assert_allclose(image.GetSpacing(), scan.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), scan.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(image.GetDirection(), scan.GetDirection(), atol=1e-6)
    frames = SimpleITK.GetArrayFromImage(image).reshape(2, *mask.array.T.shape)
    for number in (1, 2):
        np.testing.assert_array_equal(frames[number - 1] > 0, number == mask.array.T)


def test_compressed_source_with_blank_identity_filled_in(shared_data: Path, tmp_path: Path) -> None:
    paths = []
    for number, path in enumerate(sorted((shared_data / "dicom/ct_512").iterdir())[:4]):
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"
        paths.append(tmp_path / f"{number}.dcm")
        dataset.save_as(paths[-1])
    mask = blobs(*scan_from(paths))
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    for number, found in points_by_pydicom(tmp_path / "mask.seg.dcm").items():
        np.testing.assert_allclose(found, world_points(mask, number), atol=1e-3)


def test_says_what_it_is_and_what_it_was_made_from(mask: LabelVolume, tmp_path: Path) -> None:
    assert dicom_seg.write(mask, tmp_path / "mask.seg.dcm") == ()
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    assert (seg.Modality, seg.SegmentationType, seg.Manufacturer, seg.SeriesNumber) == ("SEG", "BINARY", "volseg", 1003)
    assert (seg.PatientID, seg.PatientBirthDate, seg.PatientSex, seg.StudyTime) == ("T1", "19700102", "O", "101112")
    first, second = seg.SegmentSequence
    assert (first.SegmentNumber, first.SegmentLabel, first.SegmentAlgorithmType) == (1, LABELS[0].name, "AUTOMATIC")
    kind = second.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("5366008", "SCT", "Hippocampus")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "255551008"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    dicom = mask.source.dicom
    assert dicom is not None
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == dicom.series_uid
    assert [item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence] == [
        instance.sop_instance_uid for instance in dicom.instances
    ]
    for frame, instance in zip(seg.PerFrameFunctionalGroupsSequence, 2 * dicom.instances, strict=True):
        derived = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert derived.ReferencedSOPInstanceUID == instance.sop_instance_uid
    assert [
        list(frame.FrameContentSequence[0].DimensionIndexValues) for frame in seg.PerFrameFunctionalGroupsSequence
    ] == [[segment, place] for segment in (1, 2) for place in (1, 2, 3, 4)]


def test_colours_are_the_labels(mask: LabelVolume, tmp_path: Path) -> None:
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    segments = pydicom.dcmread(tmp_path / "mask.seg.dcm").SegmentSequence
    for label, segment in zip(LABELS, segments, strict=True):
        colour = highdicom.color.CIELabColor.from_dicom_value(tuple(segment.RecommendedDisplayCIELabValue))
        np.testing.assert_allclose(colour.to_rgb(), label.colour, atol=1)


def test_red_in_cielab_by_the_published_value(series: list[Path], tmp_path: Path) -> None:
    geometry, source = scan_from(series)
    labels = (Label(value=1, name="red", colour=(255, 0, 0)),)
    dicom_seg.write(blobs(geometry, source, labels), tmp_path / "mask.seg.dcm")
    lightness, a, b = pydicom.dcmread(tmp_path / "mask.seg.dcm").SegmentSequence[0].RecommendedDisplayCIELabValue
    # sRGB red is L* 53.24, a* 80.09, b* 67.20; DICOM PS3.3 C.10.7.1.1 maps 0..100 and -128..127 to 0..65535.
    np.testing.assert_allclose(
        (lightness * 100 / 65535, a * 255 / 65535 - 128, b * 255 / 65535 - 128), (53.24, 80.09, 67.20), atol=0.05
    )


def test_numbers_are_places_among_the_labels_whatever_occurs(series: list[Path], tmp_path: Path) -> None:
    geometry, source = scan_from(series)
    labels = tuple(Label(value=value, name=f"label {value}", colour=(9, 9, 9)) for value in (3, 50, 700))
    array = np.zeros(geometry.shape, dtype=np.uint16)
    array[1, 2, 1] = 700
    dicom_seg.write(LabelVolume(array, geometry, labels, source), tmp_path / "mask.seg.dcm")
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [
        (1, "label 3"),
        (2, "label 50"),
        (3, "label 700"),
    ]
    found = points_by_pydicom(tmp_path / "mask.seg.dcm")
    assert (len(found[1]), len(found[2])) == (0, 0)
    np.testing.assert_allclose(found[3], geometry.voxel_to_world([[1, 2, 1]]), atol=1e-4)


@pytest.mark.parametrize(("limit", "frames"), [(0, 4), (2**20, 8)])
def test_an_empty_mask_has_frames(
    mask: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, frames: int
) -> None:
    monkeypatch.setattr(dicom_seg, "FULL_FRAMES_BYTES", limit)
    dicom_seg.write(mask.with_array(np.zeros_like(mask.array)), tmp_path / "mask.seg.dcm")
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    assert (seg.NumberOfFrames, len(seg.SegmentSequence)) == (frames, 2)
    assert not seg.pixel_array.any()


def test_a_label_without_a_code_gets_a_private_one(series: list[Path], tmp_path: Path) -> None:
    name = "ein sehr langer Name für ein Organ, das niemand kennt \\ und das keinen Code hat, nirgends"
    geometry, source = scan_from(series)
    dicom_seg.write(blobs(geometry, source, (Label(value=1, name=name, colour=(0, 9, 0)),)), tmp_path / "mask.seg.dcm")
    segment = pydicom.dcmread(tmp_path / "mask.seg.dcm").SegmentSequence[0]
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodingSchemeDesignator == "99VOLSEG"
    assert len(kind.CodeValue) == 16
    assert kind.CodeMeaning == segment.SegmentLabel
    assert segment.SegmentLabel == name.replace("\\", "/")[:64].rstrip()


def test_letters_of_other_character_sets_survive(tmp_path: Path) -> None:
    paths = write_series(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    dicom_seg.write(blobs(*scan_from(paths)), tmp_path / "mask.seg.dcm")
    assert pydicom.dcmread(tmp_path / "mask.seg.dcm").PatientName == "Müller^Jörg"


def test_absent_type_2_attributes_are_empty_with_notes(tmp_path: Path) -> None:
    absent = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "ReferringPhysicianName", "PatientName")
    paths = write_series(tmp_path, without=(*absent, "SeriesNumber", "SliceThickness"))
    notes = dicom_seg.write(blobs(*scan_from(paths)), tmp_path / "mask.seg.dcm")
    assert sorted(note.split()[0] for note in notes) == sorted(absent)
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    assert all(keyword in seg and not seg[keyword].value for keyword in absent)
    assert seg.SeriesNumber == 1000
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5


def test_hippocrop_has_no_birth_date_and_no_sex(shared_data: Path, tmp_path: Path) -> None:
    notes = dicom_seg.write(blobs(*scan_from((shared_data / HIPPOCROP).iterdir())), tmp_path / "mask.seg.dcm")
    assert any(note.startswith("PatientBirthDate is absent") for note in notes)
    assert any(note.startswith("PatientSex is absent") for note in notes)


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_values_that_are_not_valid_are_empty_with_notes(tmp_path: Path) -> None:
    paths = write_series(tmp_path, PatientSex="U", StudyDate="20241399", StudyTime="9999", PatientName="NoCaret")
    notes = dicom_seg.write(blobs(*scan_from(paths)), tmp_path / "mask.seg.dcm")
    assert [note.split()[0] for note in notes] == ["PatientSex", "StudyDate", "StudyTime"]
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    assert (seg.PatientName, seg.PatientSex, seg.StudyDate, seg.StudyTime) == ("NoCaret", "", "", "")


def test_directions_that_differ_in_the_last_digit_are_one_orientation(tmp_path: Path) -> None:
    paths = write_series(tmp_path, orientation=(1, 0, 0, 0, 1, 0))
    header = pydicom.dcmread(paths[1])
    header.ImageOrientationPatient = [0.999999, 0.00005, 0, 0, 1, 0]
    header.save_as(paths[1])
    mask = blobs(*scan_from(paths))
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    np.testing.assert_allclose(points_by_pydicom(tmp_path / "mask.seg.dcm")[1], world_points(mask, 1), atol=1e-3)


def without_times(path: Path) -> str:
    seg = pydicom.dcmread(path)
    del seg.InstanceCreationTime, seg.InstanceCreationDate, seg.ContentTime, seg.ContentDate
    return str(seg.to_json())


def test_the_same_mask_gives_the_same_file_but_for_times(mask: LabelVolume, tmp_path: Path) -> None:
    dicom_seg.write(mask, tmp_path / "a.dcm")
    dicom_seg.write(mask, tmp_path / "b.dcm")
    other = mask.array.copy()
    other[0, 0, 0] = 1
    dicom_seg.write(mask.with_array(other), tmp_path / "c.dcm")
    assert without_times(tmp_path / "a.dcm") == without_times(tmp_path / "b.dcm")
    uids = [pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in ("a.dcm", "c.dcm")]
    assert uids[0] != uids[1]


def test_no_dicom_series(mask: LabelVolume, tmp_path: Path) -> None:
    assert refused(LabelVolume(mask.array, mask.geometry, LABELS), tmp_path / "m.dcm").code == "no-source-series"


def test_blank_uids(series: list[Path], tmp_path: Path) -> None:
    error = refused(blobs(*scan_from(series, identity=False)), tmp_path / "m.dcm")
    assert error.code == "no-identity"
    assert "--repair-uids" in str(error)


def test_files_that_went_away(mask: LabelVolume, series: list[Path], tmp_path: Path) -> None:
    series[0].unlink()
    assert refused(mask, tmp_path / "m.dcm").code == "no-source-series"


def test_files_that_are_other_images_now(mask: LabelVolume, series: list[Path], tmp_path: Path) -> None:
    shutil.copy(series[0], series[1])
    assert refused(mask, tmp_path / "m.dcm").code == "no-identity"


def moved(geometry: Geometry, i: float, j: float, k: float) -> Geometry:
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.voxel_to_world((i, j, k))
    return Geometry(geometry.shape, affine)


def test_a_mask_on_another_grid(series: list[Path], tmp_path: Path) -> None:
    geometry, source = scan_from(series)
    array = np.zeros(geometry.shape, dtype=np.uint8)
    flipped = Geometry(geometry.shape, geometry.affine @ np.diag([1.0, 1.0, -1.0, 1.0]))
    for other in (moved(geometry, 1, 0, 0), moved(geometry, 0, 0.3, 0), moved(geometry, 0, 0, -1), flipped):
        assert refused(LabelVolume(array, other, LABELS, source), tmp_path / "m.dcm").code == "grid-mismatch"
    for crop in (array[:-1], array[:, :-1], array[..., :-1]):
        i, j, k = crop.shape
        smaller = LabelVolume(crop, Geometry((i, j, k), geometry.affine), LABELS, source)
        assert refused(smaller, tmp_path / "m.dcm").code == "grid-mismatch"


def test_slices_that_were_evened_out_are_still_the_sources(series: list[Path], tmp_path: Path) -> None:
    geometry, source = scan_from(series)
    mask = blobs(moved(geometry, 0, 0, 0.03), source)
    dicom_seg.write(mask, tmp_path / "m.dcm")
    np.testing.assert_allclose(points_by_pydicom(tmp_path / "m.dcm")[1], world_points(mask, 1), atol=0.1)
    np.testing.assert_allclose(
        points_by_pydicom(tmp_path / "m.dcm")[1], world_points(blobs(geometry, source), 1), atol=1e-4
    )


@pytest.mark.parametrize("value", [2, 200])
def test_voxels_that_no_label_declares(series: list[Path], tmp_path: Path, value: int) -> None:
    geometry, source = scan_from(series)
    labels = (LABELS[0], Label(value=7, name="seven", colour=(1, 2, 3)))
    array = np.full(geometry.shape, value, dtype=np.uint8)
    assert refused(LabelVolume(array, geometry, labels, source), tmp_path / "m.dcm").code == "format"


def test_no_labels(mask: LabelVolume, tmp_path: Path) -> None:
    empty = np.zeros_like(mask.array)
    assert refused(LabelVolume(empty, mask.geometry, (), mask.source), tmp_path / "m.dcm").code == "format"


def test_codes_that_are_long_and_meanings_that_are_too_long(mask: LabelVolume, tmp_path: Path) -> None:
    code = Code(value="12345678901234567", scheme="SCT", meaning="m" * 65)
    label = Label(value=1, name="n" * 200, colour=(0, 0, 0), code=code)
    dicom_seg.write(LabelVolume(np.ones_like(mask.array), mask.geometry, (label,), mask.source), tmp_path / "m.dcm")
    (segment,) = pydicom.dcmread(tmp_path / "m.dcm").SegmentSequence
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    assert (segment.SegmentLabel, kind.LongCodeValue, kind.CodeMeaning) == ("n" * 64, code.value, "m" * 64)
    assert "CodeValue" not in kind


@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize("shape", [(5, 7, 4), (200, 8, 3), (301, 2, 2)])
def test_a_label_map_by_pydicom_and_highdicom(tmp_path: Path, shape: tuple[int, int, int], count: int) -> None:
    geometry, source = scan_from(write_series(tmp_path, shape))
    labels = tuple(Label(value=2 * n, name=f"label {n}", colour=(9, 9, n % 256)) for n in range(1, count + 1))
    places = np.random.default_rng(4).integers(0, count + 1, geometry.shape)
    places[: shape[0] // 2] = np.where(places[: shape[0] // 2] > count // 2, count, 0)
    places[:, 1] = 0
    mask = LabelVolume((2 * places).astype(np.uint16), geometry, labels, source)
    path = tmp_path / "m.labelmap.dcm"
    assert dicom_seg.write(mask, path, kind="labelmap") == ()

    seg = pydicom.dcmread(path)
    assert (seg.SegmentationType, seg.NumberOfFrames, seg.BitsAllocated) == (
        "LABELMAP",
        shape[2],
        8 if count < 256 else 16,
    )
    np.testing.assert_array_equal(seg.pixel_array, places.T)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    indices = np.argwhere(volume.array == count)
    found = sort_rows(ras_from_lps(indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]))
    np.testing.assert_allclose(found, world_points(mask, 2 * count), atol=1e-4)


def test_regions_are_tracked_by_name_and_uid_alone_or_together(mask: LabelVolume, tmp_path: Path) -> None:
    dicom_seg.write(mask, tmp_path / "m.dcm")
    segments = pydicom.dcmread(tmp_path / "m.dcm").SegmentSequence
    assert [segment.TrackingID for segment in segments] == [label.name for label in LABELS]
    assert len({segment.TrackingUID for segment in segments}) == 2


def test_many_frames_get_a_note(mask: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_seg, "MANY_FRAMES", 7)
    (note,) = dicom_seg.write(mask, tmp_path / "m.dcm")
    assert "8 frames" in note
    assert "labelmap" in note
    assert dicom_seg.write(mask, tmp_path / "m.dcm", kind="labelmap") == ()


def test_more_pixels_than_an_object_holds(mask: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_multiframe, "MOST_BYTES", 8 * 35 // 8 - 2)
    assert "label map" in str(refused(mask, tmp_path / "m.dcm"))


def test_geometry_of_is_what_simpleitk_reads(series: list[Path]) -> None:
    geometry, source = scan_from(series)
    assert isinstance(source, Source)
    assert source.dicom is not None
    image = SimpleITK.ReadImage([str(instance.path) for instance in source.dicom.instances])
    for index in ((0, 0, 0), (4, 6, 3), (1, 2, 3)):
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint(index), ras_from_lps(geometry.voxel_to_world(index)), atol=1e-4
        )
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in reversed(series)]
    assert not geometry_of(headers).same_grid(geometry)


@pytest.mark.parametrize("full", [True, False])
def test_segments_overlap_where_labels_do(
    series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    if not full:
        monkeypatch.setattr(dicom_seg, "FULL_FRAMES_BYTES", 0)
    mask, path = nested(*scan_from(series)), tmp_path / "mask.seg.dcm"
    dicom_seg.write(mask, path)
    found = points_by_pydicom(path)
    for number, label in enumerate(mask.labels, start=1):
        points = mask.geometry.voxel_to_world(np.argwhere(mask.voxels_of(label)))
        np.testing.assert_allclose(found[number], sort_rows(points), atol=1e-4)
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"
    pixels = highdicom.seg.segread(path).get_pixels_by_source_instance(
        [instance.sop_instance_uid for instance in _dicom(mask).instances], assert_missing_frames_are_empty=True
    )
    expected = np.stack([mask.voxels_of(label).transpose(2, 1, 0) for label in mask.labels], -1)
    np.testing.assert_array_equal(pixels, expected)
    # A layer is a part of what the UIDs are made of.
    dicom_seg.write(mask.with_array(mask.array), tmp_path / "painted.seg.dcm")
    assert pydicom.dcmread(tmp_path / "painted.seg.dcm").SOPInstanceUID != pydicom.dcmread(path).SOPInstanceUID


def _dicom(mask: LabelVolume) -> DicomSource:
    assert mask.source.dicom is not None
    return mask.source.dicom


def test_how_an_array_lies_in_memory_changes_nothing(mask: LabelVolume, tmp_path: Path) -> None:
    for number, order in enumerate((np.ascontiguousarray, np.asfortranarray)):
        dicom_seg.write(mask.mapped(order), tmp_path / f"{number}.dcm")
    assert without_times(tmp_path / "0.dcm") == without_times(tmp_path / "1.dcm")


def test_that_the_source_was_deidentified_is_said(tmp_path: Path) -> None:
    paths = write_series(tmp_path, PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    dicom_seg.write(blobs(*scan_from(paths)), tmp_path / "m.dcm")
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    assert (seg.PatientIdentityRemoved, seg.DeidentificationMethod) == ("YES", "by hand")
