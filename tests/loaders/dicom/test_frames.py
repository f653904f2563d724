"""Enhanced multi-frame objects: frames sorted and split as files are."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage, generate_uid

from tests.helpers.dicom_files import Array, lps_affine, rotation, voxels
from tests.helpers.dicom_objects import enhanced_mr, items, save
from volseg.geometry import ras_from_lps
from volseg.loaders import Candidate, find

SHAPE = (5, 4, 6)


def only(path: Path) -> Candidate:
    (candidate,) = find(path).candidates
    return candidate


def write(path: Path, dataset: Dataset) -> Path:
    return save(dataset, path / "enhanced.dcm")


def frames_of(dataset: Dataset) -> list[Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


@pytest.mark.parametrize("order", [None, (5, 2, 0, 4, 1, 3), (5, 4, 3, 2, 1, 0)])
def test_frames_are_sorted_by_position(tmp_path: Path, order: tuple[int, ...] | None) -> None:
    affine = lps_affine(directions=rotation(20, -10, 5))
    array = voxels(SHAPE)
    candidate = only(write(tmp_path, enhanced_mr(array, affine, frames=order)))
    assert candidate.usable, candidate.reason
    assert [frame for _, frame in candidate.slices] == list(np.argsort(order or range(6)))
    assert len(candidate.files) == 1
    volume = candidate.load()
    assert_array_equal(volume.array, array)
    assert_allclose(volume.geometry.affine, ras_from_lps(affine), atol=1e-6)
    assert volume.source.dicom is not None
    assert [instance.frame for instance in volume.source.dicom.instances] == list(np.argsort(order or range(6)))
    assert volume.source.dicom.identity


def test_the_grid_that_highdicom_finds(tmp_path: Path) -> None:
    path = write(tmp_path, enhanced_mr(voxels(SHAPE), lps_affine(), frames=(3, 1, 0, 2, 5, 4)))
    theirs = highdicom.imread(path).get_volume()
    ours = only(path).load()
    # highdicom's array is [slice, row, column], slices in either direction.
    corner = theirs.map_indices_to_reference(np.array([[0, 0, 0], [5, 3, 4]]))
    found = np.rint(ours.geometry.world_to_voxel(ras_from_lps(corner))).astype(int)
    assert_allclose(ours.geometry.voxel_to_world(found), ras_from_lps(corner), atol=1e-6)
    for index, (i, j, k) in zip(((0, 0, 0), (5, 3, 4)), found, strict=True):
        assert theirs.array[index] == ours.array[i, j, k]


def with_two(array: Array, change: object) -> Dataset:
    """Two images at each position: `change` tells the frame and which of the two."""
    dataset = enhanced_mr(np.concatenate([array, array + 500], axis=2), lps_affine())
    frames = frames_of(dataset)
    count = array.shape[2]
    for index, frame in enumerate(frames):
        position = frames[index % count].PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = list(position)
        change(frame, index // count)  # type: ignore[operator]
    return dataset


def echo(frame: Dataset, second: int) -> None:
    frame.MREchoSequence = items(EffectiveEchoTime=[4.6, 92.0][second])


def stack(frame: Dataset, second: int) -> None:
    frame.FrameContentSequence[0].StackID = str(second + 1)


def time(frame: Dataset, second: int) -> None:
    frame.FrameContentSequence[0].TemporalPositionIndex = second + 1


def diffusion(frame: Dataset, second: int) -> None:
    frame.MRDiffusionSequence = items(DiffusionBValue=[0.0, 1000.0][second])


def kind(frame: Dataset, second: int) -> None:
    frame.MRImageFrameTypeSequence = items(
        FrameType=["ORIGINAL", "PRIMARY", "T1", "NONE"], ComplexImageComponent=["MAGNITUDE", "PHASE"][second]
    )


def nothing(frame: Dataset, second: int) -> None:
    """Leave nothing that tells the two apart."""


def trigger(frame: Dataset, second: int) -> None:
    frame.CardiacSynchronizationSequence = items(NominalCardiacTriggerDelayTime=[0.0, 120.0][second])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (echo, ["te4.6", "te92"]),
        (stack, ["stack1", "stack2"]),
        (time, ["t1", "t2"]),
        (diffusion, ["b0", "b1000"]),
        (kind, ["MAGNITUDE", "PHASE"]),
        (trigger, ["trigger0", "trigger120"]),
    ],
)
def test_frames_of_one_file_are_split_into_volumes(tmp_path: Path, change: object, expected: list[str]) -> None:
    array = voxels(SHAPE)
    study = find(write(tmp_path, with_two(array, change)))
    assert [candidate.name.rsplit("-", 1)[1] for candidate in study.candidates] == expected
    for candidate, offset in zip(study.candidates, (0, 500), strict=True):
        assert candidate.usable, candidate.reason
        assert_array_equal(candidate.load().array, array + offset)


def test_time_points_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    candidate = only(write(tmp_path, with_two(voxels(SHAPE), nothing)))
    assert candidate.code == "duplicate-slice"
    assert candidate.reason is not None
    assert "frame 1 of enhanced.dcm and frame 7 of enhanced.dcm" in candidate.reason


def test_a_missing_frame_is_a_missing_slice(tmp_path: Path) -> None:
    array = voxels(SHAPE)
    dataset = enhanced_mr(array, lps_affine(), frames=(0, 1, 3, 4, 5))
    assert only(write(tmp_path, dataset)).code == "missing-slice"


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    array = voxels(SHAPE)
    dataset = enhanced_mr(array, lps_affine())
    for index, frame in enumerate(frames_of(dataset)):
        frame.PixelValueTransformationSequence = items(
            RescaleSlope=index + 1, RescaleIntercept=0.5 * index, RescaleType="US"
        )
    k = np.arange(SHAPE[2])
    loaded = only(write(tmp_path, dataset)).load().array.astype(float)
    assert_allclose(loaded, array * (k + 1) + 0.5 * k, rtol=1e-6)


def test_geometry_of_each_frame_comes_before_that_of_all(tmp_path: Path) -> None:
    dataset = enhanced_mr(voxels(SHAPE), lps_affine())
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for frame in frames_of(dataset):
        frame.PixelMeasuresSequence = measures
    assert only(write(tmp_path, dataset)).usable
    frames_of(dataset)[2].PixelMeasuresSequence = items(PixelSpacing=[3.0, 4.0])
    assert only(write(tmp_path, dataset)).code == "mixed-size"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(), "unreadable"),
        (lambda dataset: delattr(dataset, "PerFrameFunctionalGroupsSequence"), "unreadable"),
        (lambda dataset: delattr(frames_of(dataset)[3], "PlanePositionSequence"), "missing-geometry"),
        (lambda dataset: setattr(dataset, "NumberOfFrames", 7), "unreadable"),
        (lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-4]), "unreadable"),
        (
            lambda dataset: delattr(dataset.SharedFunctionalGroupsSequence[0], "PlaneOrientationSequence"),
            "missing-geometry",
        ),
    ],
)
def test_damage(tmp_path: Path, damage: object, code: str) -> None:
    dataset = enhanced_mr(voxels(SHAPE), lps_affine())
    damage(dataset)  # type: ignore[operator]
    assert only(write(tmp_path, dataset)).code == code


def test_one_series_over_two_files(tmp_path: Path) -> None:
    array = voxels(SHAPE)
    for name, frames in (("a", (4, 0, 2)), ("b", (1, 5, 3))):
        dataset = enhanced_mr(array, lps_affine(), frames=frames)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        save(dataset, tmp_path / name)
    candidate = only(tmp_path)
    assert candidate.usable, candidate.reason
    assert [(path.name, frame) for path, frame in candidate.slices] == [
        ("a", 1),
        ("b", 0),
        ("a", 2),
        ("b", 2),
        ("a", 0),
        ("b", 1),
    ]
    assert_array_equal(candidate.load().array, array)


def test_a_slide_without_groups_of_its_frames_is_no_volume(tmp_path: Path) -> None:
    dataset = enhanced_mr(voxels(SHAPE), lps_affine())
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    dataset.Modality = "SM"
    del dataset.PerFrameFunctionalGroupsSequence
    candidate = only(write(tmp_path, dataset))
    assert candidate.code == "not-3d"
    assert "Microscopy" in (candidate.reason or "")


def test_a_reason_names_the_label_that_differs(tmp_path: Path) -> None:
    def label(frame: Dataset, second: int) -> None:
        frame.MRArterialSpinLabelingSequence = items(ASLContext=["LABEL", "CONTROL"][second])

    array = voxels(SHAPE)
    dataset = with_two(array, label)
    study = find(write(tmp_path, dataset))
    assert [candidate.name.rsplit("-", 1)[1] for candidate in study.candidates] == ["CONTROL", "LABEL"]
    assert_array_equal(study.candidates[1].load().array, array)
    # Where it doesn't make two volumes, it is what is named.
    frames_of(dataset)[0].MRArterialSpinLabelingSequence = items(ASLContext="M_ZERO_SCAN")
    candidate = only(write(tmp_path, dataset))
    assert candidate.code == "duplicate-slice"
    assert "differing in ASLContext" in (candidate.reason or "")
