from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from tests.helpers.dicom_files import lps_affine, write_series
from tests.helpers.dicom_objects import save, segmentation
from volseg.errors import GeometryError, InputError, UsageError
from volseg.evaluation import evaluate_folders
from volseg.evaluation.pairs import (
    Pair,
    find_pairs,
    names_beside_prediction,
    names_beside_reference,
    read_mask,
    read_pair,
)
from volseg.results.case import CaseResult, LabelResult
from volseg.results.case import write as write_result

AFFINE = np.array([[-1.5, 0, 0, 10], [0, 2, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]], dtype=float)


def write(path: Path, array: npt.ArrayLike | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.ones((3, 4, 2), dtype=np.uint8) if array is None else np.asarray(array)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path


def test_a_case_s_folder_a_zipped_and_a_plain_file_are_paired(tmp_path: Path) -> None:
    predicted, reference = tmp_path / "out", tmp_path / "labels"
    for name in ("b/mask.nii.gz", "a.nii.gz", "c.nii"):
        write(predicted / name)
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        write(reference / name)
    pairs, alone = find_pairs(predicted, reference)
    assert [(pair.case, pair.predicted, pair.reference) for pair in pairs] == [
        ("a", predicted / "a.nii.gz", reference / "a.nii.gz"),
        ("b", predicted / "b" / "mask.nii.gz", reference / "b.nii.gz"),
        ("c", predicted / "c.nii", reference / "c.nii.gz"),
    ]
    assert alone == []


def test_what_has_no_partner_is_listed_with_the_reason(tmp_path: Path) -> None:
    predicted, reference = tmp_path / "out", tmp_path / "labels"
    for name in ("a/mask.nii.gz", "extra/mask.nii.gz"):
        write(predicted / name)
    for name in ("a", "gone", "refused", "seg-only"):
        write(reference / f"{name}.nii.gz")
    write_result(predicted / "refused", CaseResult(case="refused", status="refused", reason="the spacing is 9 mm"))
    (predicted / "seg-only").mkdir()
    pairs, alone = find_pairs(predicted, reference)
    assert [pair.case for pair in pairs] == ["a"]
    assert {item.case: item.reason for item in alone} == {
        "extra": f"no reference in {reference}",
        "gone": f"no prediction in {predicted}",
        "refused": f"no prediction in {predicted} (refused: the spacing is 9 mm)",
        "seg-only": f"no prediction in {predicted} (seg-only/ is there without mask.nii.gz)",
    }
    assert {item.code for item in alone} == {None}


def test_a_skipped_series_of_a_study_needs_no_reference(tmp_path: Path) -> None:
    write(tmp_path / "out" / "a" / "mask.nii.gz")
    write_result(tmp_path / "out" / "skipped", CaseResult(case="skipped", status="skipped", reason="a CT"))
    write(tmp_path / "labels" / "a.nii.gz")
    assert find_pairs(tmp_path / "out", tmp_path / "labels")[1] == []


def test_single_masks_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    file, reference = write(tmp_path / "mine.nii.gz"), write(tmp_path / "truth.nii")
    folder = write(tmp_path / "out" / "case7" / "mask.nii.gz").parent
    for predicted, mask, case in (
        (file, file, "mine"),
        (folder, folder / "mask.nii.gz", "case7"),
        (folder / "mask.nii.gz", folder / "mask.nii.gz", "case7"),
    ):
        (pair,), alone = find_pairs(predicted, reference)
        assert (pair.case, pair.predicted, pair.reference, alone) == (case, mask, reference, [])


def test_one_mask_finds_its_reference_in_a_folder(tmp_path: Path) -> None:
    mask = write(tmp_path / "out" / "b" / "mask.nii.gz")
    for name in ("a", "b"):
        write(tmp_path / "labels" / f"{name}.nii.gz")
    pairs, alone = find_pairs(mask, tmp_path / "labels")
    assert [(pair.case, pair.reference.name) for pair in pairs] == [("b", "b.nii.gz")]
    assert [item.case for item in alone] == ["a"]


def test_a_name_is_compared_as_predict_writes_it(tmp_path: Path) -> None:
    write(tmp_path / "out" / "case_1" / "mask.nii.gz")
    write(tmp_path / "labels" / "case 1.nii.gz")
    (pair,), alone = find_pairs(tmp_path / "out", tmp_path / "labels")
    assert (pair.case, alone) == ("case_1", [])


def test_files_that_are_no_masks_are_passed_over(tmp_path: Path) -> None:
    for folder in ("out", "labels"):
        write(tmp_path / folder / "a.nii.gz")
        (tmp_path / folder / "._a.nii.gz").write_bytes(b"what macOS leaves")
        (tmp_path / folder / "notes.txt").write_text("x")
    pairs, alone = find_pairs(tmp_path / "out", tmp_path / "labels")
    assert ([pair.case for pair in pairs], alone) == (["a"], [])


def test_two_masks_of_one_case_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "out" / "a.nii.gz")
    write(tmp_path / "out" / "a" / "mask.nii.gz")
    write(tmp_path / "labels" / "a.nii.gz")
    with pytest.raises(UsageError, match=r"a/mask.nii.gz and a.nii.gz are of one case"):
        find_pairs(tmp_path / "out", tmp_path / "labels")


def test_a_path_that_isn_t_there_and_a_folder_without_masks(tmp_path: Path) -> None:
    write(tmp_path / "labels" / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        find_pairs(tmp_path / "nowhere", tmp_path / "labels")
    with pytest.raises(InputError, match=r"empty: no mask: expected <case>/mask.nii.gz") as caught:
        find_pairs(tmp_path / "labels", tmp_path / "empty")
    assert caught.value.code == "no-image"


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "Anterior", "2": "Posterior"},  # MSD
        {"background": 0, "Anterior": 1, "Posterior": 2, "whole": [1, 2]},  # nnU-Net
    ],
)
def test_names_from_a_dataset(tmp_path: Path, labels: dict[str, object]) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    expected = {1: "Anterior", 2: "Posterior"}
    assert names_beside_reference(tmp_path / "labelsTr" / "a.nii.gz") == expected
    assert names_beside_reference(tmp_path / "a.nii.gz") == expected


def test_names_from_a_result(tmp_path: Path) -> None:
    write_result(tmp_path, CaseResult(case="a", status="done", labels=(LabelResult(value=3, name="Spleen", voxels=9),)))
    assert names_beside_prediction(tmp_path / "mask.nii.gz") == {3: "Spleen"}
    assert names_beside_reference(tmp_path / "mask.nii.gz") == {3: "Spleen"}
    assert names_beside_prediction(tmp_path / "other.nii.gz") == {}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"labels": [1]}', '{"labels": 5}', '{"labels": [{"value": 1}]}'])
def test_names_that_can_t_be_read_are_no_names(tmp_path: Path, content: str) -> None:
    for name in ("result.json", "dataset.json"):
        (tmp_path / name).write_text(content)
    assert names_beside_prediction(tmp_path / "mask.nii.gz") == {}
    assert names_beside_reference(tmp_path / "mask.nii.gz") == {}


SHAPE = (6, 5, 4)


def seg_of(folder: Path, masks: Sequence[npt.NDArray[np.bool_]], names: Sequence[str]) -> Path:
    """SEG [column, row, slice] of a series on `lps_affine`."""
    headers = [pydicom.dcmread(path) for path in write_series(folder / "series", np.zeros(SHAPE, np.int16))]
    seg = segmentation(headers, masks)
    for item, name in zip(seg.SegmentSequence, names, strict=True):
        item.SegmentLabel = name
    return save(seg, folder / "case.seg.dcm")


def nifti_like(path: Path, array: npt.NDArray[np.uint8], labels: dict[int, str]) -> Path:
    """Mask in the folder of a case, on the grid of that series."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1, -1, 1, 1]) @ lps_affine()), path)
    listed = tuple(LabelResult(value=value, name=name) for value, name in labels.items())
    write_result(path.parent, CaseResult(case=path.parent.name, status="done", labels=listed))
    return path


@pytest.fixture
def two() -> npt.NDArray[np.uint8]:
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 0:2, 1:] = 1
    array[4:, 3, 0] = 2
    return array


def test_a_seg_gets_the_values_of_its_names_whichever_side_it_is_on(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    seg = seg_of(tmp_path, [two == 2, two == 1, two == 9], ["TAIL", "head", "more"])
    mask = nifti_like(tmp_path / "out" / "case" / "mask.nii.gz", two, {1: "Head", 2: "Tail", 3: "Body"})
    ((pair,), alone) = find_pairs(tmp_path / "out", seg.parent)
    assert (pair.case, pair.predicted, pair.reference, alone) == ("case", mask, seg, [])
    for swap in (False, True):
        files = (seg, mask) if swap else (mask, seg)
        predicted, reference, notes = read_pair(Pair(case="case", predicted=files[0], reference=files[1]))
        for found in (predicted, reference):
            np.testing.assert_array_equal(found.array, two)
            assert [(label.value, label.name) for label in found.labels] == [(1, "Head"), (2, "Tail"), (3, "Body")]
        assert predicted.geometry.same_grid(reference.geometry)
        assert notes == ("no segment is called 'Body': this label is empty",)


def test_a_folder_of_predictions_against_segs(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    more = two.copy()
    more[1, 0, 1] = 0
    nifti_like(tmp_path / "out" / "case" / "mask.nii.gz", more, {1: "Head", 2: "Tail"})
    found = evaluate_folders(tmp_path / "out", seg_of(tmp_path, [two == 2, two == 1], ["tail", "head"]).parent)
    ((head, tail),) = [case.labels for case in found.cases]
    assert head.name == "Head"
    assert head.dice == pytest.approx(2 * 11 / (11 + 12))
    assert (tail.name, tail.dice) == ("Tail", 1)
    assert (found.not_evaluated, found.notes) == ((), ())


def test_dicom_files_that_are_no_masks_are_passed_over(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    seg = seg_of(tmp_path, [two == 1], ["head"])
    for path in (tmp_path / "series").iterdir():
        path.rename(seg.parent / path.name)
    write(tmp_path / "out" / "case.nii.gz")
    ((pair,), alone) = find_pairs(tmp_path / "out", seg.parent)
    assert (pair.reference, alone) == (seg, [])


def test_a_seg_keeps_its_numbers_where_no_names_are_known(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    seg = seg_of(tmp_path, [two == 2, two == 1], ["tail", "head"])
    mask = nifti_like(tmp_path / "a.nii.gz", two, {})
    _, reference, _ = read_pair(Pair(case="case", predicted=mask, reference=seg))
    np.testing.assert_array_equal(reference.array, np.array([0, 2, 1])[two])
    assert [(label.value, label.name) for label in reference.labels] == [(1, "tail"), (2, "head")]


def test_two_segs_are_not_compared(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    seg = seg_of(tmp_path, [two == 1], ["head"])
    with pytest.raises(InputError, match="give one as NIfTI") as caught:
        read_pair(Pair(case="case", predicted=seg, reference=seg))
    assert caught.value.code == "unsupported"


def test_a_case_that_was_written_as_seg_alone_is_found(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    folder = tmp_path / "out" / "case"
    seg_of(tmp_path, [two == 1], ["head"]).rename(write(folder / "mask.nii.gz").with_name("mask.seg.dcm"))
    assert find_pairs(folder, folder)[0][0].predicted == folder / "mask.nii.gz"
    (folder / "mask.nii.gz").unlink()
    write(tmp_path / "labels" / "case.nii.gz")
    ((pair,), alone) = find_pairs(tmp_path / "out", tmp_path / "labels")
    assert (pair.case, pair.predicted, alone) == ("case", folder / "mask.seg.dcm", [])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_a_mask(tmp_path: Path, dtype: npt.DTypeLike) -> None:
    array = np.array([[[0, 1], [2, 100]], [[3, 0], [0, 2]]], dtype=dtype)
    mask = read_mask(write(tmp_path / "a.nii.gz", array), {2: "two"})
    np.testing.assert_array_equal(mask.array, array)
    np.testing.assert_allclose(mask.geometry.affine, AFFINE)
    assert [(label.value, label.name) for label in mask.labels] == [(2, "two")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.01, r"a.nii.gz: no label map: 1 voxels aren't whole numbers, the first is 1.00999999"),
        (0.5, r"the first is 0.5"),
        (-1.0, r"values from -1 to 1; labels are 0 to 65535"),
        (70000.0, r"values from 0 to 70000"),
    ],
)
def test_numbers_that_are_no_labels_are_refused(tmp_path: Path, value: float, message: str) -> None:
    array = np.zeros((3, 4, 2), dtype=np.float32)
    array[0, 0, 0], array[2, 1, 1] = 1, value
    with pytest.raises(InputError, match=message) as caught:
        read_mask(write(tmp_path / "a.nii.gz", array), {})
    assert caught.value.code == "unsupported"


def test_several_channels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", np.zeros((3, 4, 2, 2), dtype=np.uint8))
    with pytest.raises(GeometryError, match=r"one value a voxel, this holds 2") as caught:
        read_mask(path, {})
    assert caught.value.code == "not-3d"


@pytest.mark.parametrize("orientation", ["LPS", "SLP", "AIR"])
def test_a_reference_in_another_order_and_a_few_micrometres_off(
    tmp_path: Path, two: npt.NDArray[np.uint8], orientation: str
) -> None:
    affine = np.diag([1.0, 1.25, 2.0, 1.0])
    nib.save(nib.Nifti1Image(two, affine), tmp_path / "ours.nii.gz")
    affine[0, 3] += 0.0077
    image = nib.Nifti1Image(two, affine)
    wanted = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), tmp_path / "theirs.nii.gz")
    found = evaluate_folders(tmp_path / "ours.nii.gz", tmp_path / "theirs.nii.gz")
    assert [label.dice for label in found.cases[0].labels] == [1, 1]
    assert any(f"reference: stored as {orientation}, the image as RAS" in note for note in found.notes)
    assert any("voxel centres up to 0.0077 mm apart" in note for note in found.notes)


def test_a_reference_half_a_voxel_off_is_another_grid(tmp_path: Path, two: npt.NDArray[np.uint8]) -> None:
    nib.save(nib.Nifti1Image(two, np.eye(4)), tmp_path / "ours.nii.gz")
    affine = np.eye(4)
    affine[2, 3] = 0.5
    nib.save(nib.Nifti1Image(two, affine), tmp_path / "theirs.nii.gz")
    (item,) = evaluate_folders(tmp_path / "ours.nii.gz", tmp_path / "theirs.nii.gz").not_evaluated
    assert item.code == "grid-mismatch"
    assert "another grid than its reference: voxel centres up to 0.5 mm apart" in item.reason


def test_the_number_of_nnunet_s_channel_is_no_part_of_a_case_s_name(tmp_path: Path) -> None:
    predicted, reference = tmp_path / "out", tmp_path / "labels"
    for name in ("a_0000", "b_0000", "b", "c"):
        write(predicted / name / "mask.nii.gz")
    for name in ("a", "b", "c_0000"):
        write(reference / f"{name}.nii.gz")
    pairs, alone = find_pairs(predicted, reference)
    assert [(pair.case, pair.predicted.parent.name, pair.reference.name) for pair in pairs] == [
        ("a", "a_0000", "a.nii.gz"),
        ("b", "b", "b.nii.gz"),
        ("c", "c", "c_0000.nii.gz"),
    ]
    assert [item.case for item in alone] == ["b_0000"]
