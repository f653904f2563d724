"""SEG of sources that are more than a folder of single images: frames of multi-frame objects, members of archives."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import BinaryIO

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage, MRImageStorage, generate_uid

from tests.helpers import dicom_files
from tests.helpers.dicom_objects import enhanced_mr, save, with_echoes
from tests.helpers.dicom_sources import mask_on, source_of
from tests.helpers.scans import LABELS, blobs
from tests.helpers.seg_points import points_by_pydicom, refused, world_points
from volseg.export import dicom_seg
from volseg.geometry import Geometry, ras_from_lps
from volseg.labels.read import load_labels
from volseg.loaders import Candidate, find
from volseg.volume import LabelVolume

SHAPE = (5, 7, 4)
OBLIQUE = dicom_files.lps_affine(directions=dicom_files.rotation(20, -35, 50))


def references(path: Path) -> list[tuple[str, int]]:
    """Instance and frame number that each frame of a SEG refers to."""
    found = []
    for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.SpatialLocationsPreserved == "YES"
        found.append((source.ReferencedSOPInstanceUID, int(source.ReferencedFrameNumber)))
    return found


def enhanced_ct(array: np.ndarray, affine: np.ndarray) -> Dataset:
    """Orientation and pixel spacing in each frame's own groups, as the standard allows."""
    dataset = enhanced_mr(array, affine)
    dataset.SOPClassUID, dataset.Modality = EnhancedCTImageStorage, "CT"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = copy.deepcopy(shared.PlaneOrientationSequence)
        frame.PixelMeasuresSequence = copy.deepcopy(shared.PixelMeasuresSequence)
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    return dataset


@pytest.mark.parametrize(
    ("kind", "order"), [("MR", [0, 1, 2, 3]), ("MR", [3, 2, 1, 0]), ("MR", [2, 0, 3, 1]), ("CT", [0, 1, 2, 3])]
)
@pytest.mark.parametrize("full", [True, False])
def test_frames_of_one_file_whatever_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, order: list[int], full: bool
) -> None:
    if not full:
        monkeypatch.setattr(dicom_seg, "FULL_FRAMES_BYTES", 0)
    array = dicom_files.voxels(SHAPE)
    dataset = enhanced_mr(array, OBLIQUE, frames=order) if kind == "MR" else enhanced_ct(array, OBLIQUE)
    frames = [order.index(k) for k in range(4)]
    file = save(dataset, tmp_path / "enhanced.dcm")
    mask = mask_on([(file, frame) for frame in frames], OBLIQUE, SHAPE[:2])
    path = tmp_path / "mask.seg.dcm"
    assert dicom_seg.write(mask, path) == ()

    for number, found in points_by_pydicom(path).items():
        assert_allclose(found, world_points(mask, number), atol=1e-4)
    occupied = [(value, k) for value in (1, 2) for k in range(4) if full or (mask.array[..., k] == value).any()]
    assert references(path) == [(dataset.SOPInstanceUID, frames[k] + 1) for _, k in occupied]

    pixels = highdicom.seg.segread(path).get_pixels_by_source_frame(
        dataset.SOPInstanceUID,
        [frame + 1 for frame in frames],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    assert_array_equal(pixels, mask.array.transpose(2, 1, 0))


def test_positions_and_thickness_are_the_frames_own(tmp_path: Path) -> None:
    dataset = enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE)
    mask = mask_on([(save(dataset, tmp_path / "in.dcm"), k) for k in range(4)], OBLIQUE, SHAPE[:2])
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    for place, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        source = dataset.PerFrameFunctionalGroupsSequence[place % 4].PlanePositionSequence[0]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (99.0, 2.5)
    assert (seg.Rows, seg.Columns, seg.NumberOfFrames) == (7, 5, 8)


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_numbers_that_are_longer_than_dicom_allows(tmp_path: Path) -> None:
    dataset = enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = ["0.9000000000000001", "0.7000000000000002"]
    measures.SliceThickness = "2.5000000000000004"
    mask = mask_on([(save(dataset, tmp_path / "in.dcm"), k) for k in range(4)], OBLIQUE, SHAPE[:2])
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    measures = pydicom.dcmread(tmp_path / "mask.seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    numbers = [*measures.PixelSpacing, measures.SliceThickness]
    assert numbers == [0.9, 0.7, 2.5]
    assert max(len(str(number)) for number in numbers) <= 16


def test_what_the_whole_refers_to(tmp_path: Path) -> None:
    dataset = enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE)
    file = save(dataset, tmp_path / "in.dcm")
    for frames in ([0, 1, 2, 3], [1, 2]):
        affine = OBLIQUE.copy()
        affine[:3, 3] = (OBLIQUE @ [0, 0, frames[0], 1])[:3]
        dicom_seg.write(mask_on([(file, k) for k in frames], affine, SHAPE[:2]), tmp_path / "mask.seg.dcm")
        seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
        [series] = seg.ReferencedSeriesSequence
        [instance] = series.ReferencedInstanceSequence
        [image] = seg.SourceImageSequence
        assert series.SeriesInstanceUID == dataset.SeriesInstanceUID
        for item in (instance, image):
            assert item.ReferencedSOPClassUID == dataset.SOPClassUID
            assert item.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
        # Frames are named only where the reference isn't to all of them.
        assert image.get("ReferencedFrameNumber") == (None if len(frames) == 4 else [2, 3])
        assert "ReferencedFrameNumber" not in instance


def test_one_of_two_echoes(tmp_path: Path) -> None:
    dataset = with_echoes(dicom_files.voxels(SHAPE), OBLIQUE, [4.6, 92])
    file = save(dataset, tmp_path / "in.dcm")
    uids = set()
    for echo in (0, 1):
        mask = mask_on([(file, 2 * k + echo) for k in range(4)], OBLIQUE, SHAPE[:2])
        dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
        assert references(tmp_path / "mask.seg.dcm") == 2 * [
            (dataset.SOPInstanceUID, 2 * k + echo + 1) for k in range(4)
        ]
        pixels = highdicom.seg.segread(tmp_path / "mask.seg.dcm").get_pixels_by_source_frame(
            dataset.SOPInstanceUID, range(1, 9), combine_segments=True, assert_missing_frames_are_empty=True
        )
        assert_array_equal(pixels[echo::2], mask.array.transpose(2, 1, 0))
        assert not pixels[1 - echo :: 2].any()
        uids.add(pydicom.dcmread(tmp_path / "mask.seg.dcm").SOPInstanceUID)
    # The same mask of the same file: the frames tell one from the other.
    assert len(uids) == 2


def test_stacks_that_the_loader_finds_in_one_file(tmp_path: Path) -> None:
    dataset = with_echoes(dicom_files.voxels(SHAPE), OBLIQUE, [4.6, 92])
    save(dataset, tmp_path / "in" / "enhanced")
    found = find(tmp_path / "in").candidates
    assert len(found) == 2
    for echo, candidate in enumerate(found):
        mask = mask_of(candidate)
        dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
        assert_allclose(points_by_pydicom(tmp_path / "mask.seg.dcm")[1], world_points(mask, 1), atol=1e-4)
        assert {frame % 2 for _, frame in references(tmp_path / "mask.seg.dcm")} == {(echo + 1) % 2}


def mask_of(candidate: Candidate) -> LabelVolume:
    assert candidate.geometry is not None
    return blobs(candidate.geometry, source_of(candidate.slices))


def test_frames_of_several_files(tmp_path: Path) -> None:
    first, second = (
        enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE, seed="enhanced", frames=frames) for frames in ([0, 2], [3, 1])
    )
    second.SOPInstanceUID = generate_uid(entropy_srcs=["second"])
    a, b = save(first, tmp_path / "a.dcm"), save(second, tmp_path / "b.dcm")
    mask = mask_on([(a, 0), (b, 1), (a, 1), (b, 0)], OBLIQUE, SHAPE[:2])
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    numbers = [(first, 1), (second, 2), (first, 2), (second, 1)]
    assert references(tmp_path / "mask.seg.dcm") == 2 * [(file.SOPInstanceUID, number) for file, number in numbers]
    assert_allclose(points_by_pydicom(tmp_path / "mask.seg.dcm")[1], world_points(mask, 1), atol=1e-4)
    seg = highdicom.seg.segread(tmp_path / "mask.seg.dcm")
    for file, slices in ((first, [0, 2]), (second, [3, 1])):
        pixels = seg.get_pixels_by_source_frame(file.SOPInstanceUID, [1, 2], combine_segments=True)
        assert_array_equal(pixels, mask.array.transpose(2, 1, 0)[slices])
    written = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    listed = [item.ReferencedSOPInstanceUID for item in written.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    assert listed == [first.SOPInstanceUID, second.SOPInstanceUID]
    assert all("ReferencedFrameNumber" not in item for item in written.SourceImageSequence)


@pytest.mark.parametrize("sop_class", [MRImageStorage, LegacyConvertedEnhancedCTImageStorage, "1.2.840.113619.4.27"])
def test_frames_of_a_class_that_highdicom_may_not_know(tmp_path: Path, sop_class: str) -> None:
    """Of single images, of frames, and of a vendor."""
    dataset = enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE)
    dataset.SOPClassUID = sop_class
    mask = mask_on([(save(dataset, tmp_path / "in.dcm"), k) for k in range(4)], OBLIQUE, SHAPE[:2])
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    assert references(tmp_path / "mask.seg.dcm") == 2 * [(dataset.SOPInstanceUID, k + 1) for k in range(4)]
    seg = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    derived = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    for item in (derived, seg.SourceImageSequence[0], seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]):
        assert item.ReferencedSOPClassUID == sop_class


@pytest.mark.parametrize("first_is_frame", [True, False])
def test_files_and_frames_mixed_are_refused(tmp_path: Path, first_is_frame: bool) -> None:
    file = save(enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE), tmp_path / "in.dcm")
    frames = [0, None, 2, 3] if first_is_frame else [None, 1, 2, 3]
    mask = mask_on([(file, frame) for frame in frames], OBLIQUE, SHAPE[:2])
    assert refused(mask, tmp_path / "m.dcm").code == "format"


def test_volseg_reads_its_own_back(tmp_path: Path) -> None:
    save(with_echoes(dicom_files.voxels(SHAPE), OBLIQUE, [4.6, 92]), tmp_path / "in" / "enhanced")
    for candidate in find(tmp_path / "in").candidates:
        scan = candidate.load()
        mask = blobs(scan.geometry, scan.source)
        dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
        assert_array_equal(load_labels(tmp_path / "mask.seg.dcm", scan).array, mask.array)


def test_a_multi_frame_file_is_read_once_and_not_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE), tmp_path / "in.dcm")
    mask = mask_on([(file, k) for k in range(4)], OBLIQUE, SHAPE[:2])
    file.write_bytes(file.read_bytes()[: -dicom_files.voxels(SHAPE).nbytes])
    read = []

    def noted(path: Path) -> BinaryIO:
        read.append(path)
        return path.open("rb")

    monkeypatch.setattr("volseg.loaders.archive.open_binary", noted)
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    assert read == [file]


def test_files_in_an_archive(tmp_path: Path) -> None:
    paths = dicom_files.write_series(tmp_path / "series", dicom_files.voxels(SHAPE), OBLIQUE)
    paths.append(save(enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE), tmp_path / "multi"))
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"a/b/{path.name}")
    inside = [tmp_path / "study.zip" / "a" / "b" / path.name for path in paths]
    classic = mask_on([(path, None) for path in inside[:4]], OBLIQUE, SHAPE[:2])
    dicom_seg.write(classic, tmp_path / "classic.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    pixels = highdicom.seg.segread(tmp_path / "classic.dcm").get_pixels_by_source_instance(
        uids[:4], combine_segments=True
    )
    assert_array_equal(pixels, classic.array.transpose(2, 1, 0))
    multi = mask_on([(inside[4], k) for k in range(4)], OBLIQUE, SHAPE[:2])
    dicom_seg.write(multi, tmp_path / "multi.dcm")
    assert references(tmp_path / "multi.dcm") == 2 * [(uids[4], k + 1) for k in range(4)]

    (tmp_path / "study.zip").write_bytes((tmp_path / "study.zip").read_bytes()[:200])
    error = refused(classic, tmp_path / "again.dcm")
    assert error.code == "no-source-series"


def test_a_tilted_stack_keeps_its_slices_where_they_are(tmp_path: Path) -> None:
    affine = dicom_files.sheared(OBLIQUE, 12)
    paths = dicom_files.write_series(tmp_path / "series", dicom_files.voxels(SHAPE), affine, modality="CT")
    mask = mask_on([(path, None) for path in paths], affine, SHAPE[:2])
    assert mask.geometry.sheared
    dicom_seg.write(mask, tmp_path / "mask.seg.dcm")
    for number, found in points_by_pydicom(tmp_path / "mask.seg.dcm").items():
        assert_allclose(found, world_points(mask, number), atol=1e-4)
    seg = highdicom.seg.segread(tmp_path / "mask.seg.dcm")
    headers = [pydicom.dcmread(path) for path in paths]
    for frame, header in zip(seg.PerFrameFunctionalGroupsSequence, 2 * headers, strict=True):
        assert frame.PlanePositionSequence[0].ImagePositionPatient == header.ImagePositionPatient
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == header.SOPInstanceUID
    pixels = seg.get_pixels_by_source_instance([header.SOPInstanceUID for header in headers], combine_segments=True)
    assert_array_equal(pixels, mask.array.transpose(2, 1, 0))
    # Along the normal; the centres of neighbouring slices are 2.5 / cos(12 degrees) = 2.556 mm apart.
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5


@pytest.mark.parametrize("full", [True, False])
def test_a_multi_frame_file_that_changed(tmp_path: Path, full: bool) -> None:
    dataset = enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE)
    file = save(dataset, tmp_path / "in.dcm")
    mask = mask_on([(file, k) for k in range(4)], OBLIQUE, SHAPE[:2])
    if full:
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["other"])
    else:
        dataset.NumberOfFrames = 3
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:3]
    save(dataset, file)
    assert refused(mask, tmp_path / "m.dcm").code == "no-identity"
    file.unlink()
    assert refused(mask, tmp_path / "m.dcm").code == "no-source-series"


def test_a_frame_without_a_position_any_more(tmp_path: Path) -> None:
    dataset = enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE)
    file = save(dataset, tmp_path / "in.dcm")
    mask = mask_on([(file, k) for k in range(4)], OBLIQUE, SHAPE[:2])
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    save(dataset, file)
    assert refused(mask, tmp_path / "m.dcm").code == "no-identity"


def test_a_mask_that_is_not_on_its_frames(tmp_path: Path) -> None:
    file = save(enhanced_mr(dicom_files.voxels(SHAPE), OBLIQUE), tmp_path / "in.dcm")
    source = source_of([(file, k) for k in (1, 0, 2, 3)])
    geometry = Geometry(SHAPE, ras_from_lps(OBLIQUE))
    empty = np.zeros(SHAPE, np.uint8)
    assert refused(LabelVolume(empty, geometry, LABELS, source), tmp_path / "m.dcm").code == "grid-mismatch"
