from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from volseg.cli.evaluation_table import render, volume
from volseg.errors import GeometryError, UsageError
from volseg.evaluation import Evaluation, evaluate_folders, evaluate_pair
from volseg.evaluation.tables import as_json, document, write_tables
from volseg.geometry import Geometry
from volseg.results.case import CaseResult, LabelResult
from volseg.results.case import write as write_result
from volseg.volume import Label, LabelVolume

#: A voxel has 12 mm3.
AFFINE = np.diag([1.5, 2.0, 4.0, 1.0])
SHAPE = (6, 5, 4)


def bars(one: int, two: int) -> npt.NDArray[np.uint8]:
    """Label 1 in `one` voxels of a row along i, label 2 in `two` of another."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[:one, 1, 1] = 1
    array[:two, 3, 2] = 2
    return array


def mask(array: npt.NDArray[np.uint8], affine: npt.ArrayLike = AFFINE, name: str = "") -> LabelVolume:
    labels = (Label(value=1, name=name, colour=(1, 2, 3)),) if name else ()
    i, j, k = array.shape
    return LabelVolume(array, Geometry((i, j, k), np.asarray(affine, dtype=float)), labels)


def save(path: Path, array: npt.NDArray[np.uint8], affine: npt.ArrayLike = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.asarray(affine)), path)


def test_hand_worked_scores_of_a_pair() -> None:
    one, two = evaluate_pair(mask(bars(4, 3)), mask(bars(2, 3)), tolerance_mm=1.5)
    assert (one.value, one.name, one.state) == (1, "label 1", "scored")
    assert [one.dice, one.iou, one.accuracy] == pytest.approx([4 / 6, 2 / 4, 118 / 120])
    # From the prediction's four voxels 0, 0, 1.5 and 3 mm: the 95th percentile lies at rank 2.85; back 0 and 0.
    assert one.hd95_mm == pytest.approx(1.5 + 0.85 * 1.5)
    assert one.nsd == pytest.approx(5 / 6)
    assert [one.predicted_ml, one.reference_ml] == pytest.approx([0.048, 0.024])
    assert [two.dice, two.iou, two.accuracy, two.hd95_mm, two.nsd] == [1, 1, 1, 0, 1]


def test_distances_are_measured_across_the_scan() -> None:
    predicted, reference = np.zeros((2, *SHAPE), dtype=np.uint8)
    predicted[1:3, 1:3, 1] = reference[3:5, 1:3, 1] = 1  # the same plate, two voxels of 1.5 mm further along i
    (found,) = evaluate_pair(mask(predicted), mask(reference))
    assert (found.dice, found.nsd) == (0, 0)
    assert found.hd95_mm == pytest.approx(3.0)
    assert evaluate_pair(mask(predicted), mask(reference), tolerance_mm=1.5)[0].nsd == pytest.approx(0.5)


def test_the_tolerance_is_1_mm_by_default() -> None:
    assert evaluate_pair(mask(bars(4, 0)), mask(bars(2, 0)))[0].nsd == pytest.approx(4 / 6)


def test_empty_masks_are_states() -> None:
    named = [Label(value=value, name=f"l{value}", colour=(0, 0, 0)) for value in (1, 2, 3)]
    predicted = LabelVolume(bars(2, 0), Geometry(SHAPE, AFFINE), tuple(named))
    one, two, three = evaluate_pair(predicted, mask(bars(0, 3)))
    assert (one.state, one.dice, one.iou, one.hd95_mm, one.nsd) == ("reference empty", 0, 0, None, 0)
    assert (two.state, two.dice, two.iou, two.hd95_mm, two.nsd) == ("prediction empty", 0, 0, None, 0)
    assert (three.state, three.dice, three.iou, three.hd95_mm, three.nsd) == ("both empty", None, None, None, None)
    assert (three.name, three.accuracy, three.predicted_ml) == ("l3", 1, 0)
    assert one.accuracy == pytest.approx(118 / 120)


def test_names_are_the_prediction_s_where_both_have_one() -> None:
    assert evaluate_pair(mask(bars(1, 0), name="ours"), mask(bars(1, 0), name="theirs"))[0].name == "ours"
    assert evaluate_pair(mask(bars(1, 0)), mask(bars(1, 0), name="theirs"))[0].name == "theirs"


def test_another_grid_is_refused() -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 0.01
    with pytest.raises(GeometryError, match=r"another grid than its reference: voxel centres up to 0.01 mm") as caught:
        evaluate_pair(mask(bars(1, 1)), mask(bars(1, 1), moved))
    assert caught.value.code == "grid-mismatch"
    moved[0, 3] = 0.0005
    assert evaluate_pair(mask(bars(1, 1)), mask(bars(1, 1), moved))[0].dice == 1


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Case a misses label 2, b holds a label 5 that no other case has, c lies on another grid, d has no prediction."""
    out, labels = tmp_path / "out", tmp_path / "data" / "labelsTr"
    save(out / "a" / "mask.nii.gz", bars(4, 0))
    save(labels / "a.nii.gz", bars(2, 3))
    five = bars(2, 2)
    five[5, 4, 3] = 5
    save(out / "b" / "mask.nii.gz", five)
    save(labels / "b.nii.gz", five)
    save(out / "c" / "mask.nii.gz", bars(1, 1)[1:])
    save(labels / "c.nii.gz", bars(1, 1))
    save(labels / "d.nii.gz", bars(1, 1))
    (tmp_path / "data" / "dataset.json").write_text(
        '{"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}'
    )
    named = (LabelResult(value=1, name="anterior part"), LabelResult(value=2, name="Head"))
    write_result(out / "a", CaseResult(case="a", status="done", labels=named))
    return out, labels


def test_a_folder(folders: tuple[Path, Path]) -> None:
    calls: list[tuple[int, int, str]] = []
    found = evaluate_folders(*folders, on_case=lambda *call: calls.append(call))
    assert calls == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    assert [case.case for case in found.cases] == ["a", "b"]
    assert [[score.value for score in case.labels] for case in found.cases] == [[1, 2, 5], [1, 2, 5]]
    assert [score.state for score in found.cases[0].labels] == ["scored", "prediction empty", "both empty"]
    assert [score.name for score in found.cases[0].labels] == ["anterior part", "Head", "label 5"]
    assert found.cases[0].accuracy == pytest.approx(115 / 120)
    assert found.cases[1].accuracy == 1
    assert [(item.case, item.code) for item in found.not_evaluated] == [("c", "grid-mismatch"), ("d", None)]
    assert "shape (5, 5, 4) against (6, 5, 4)" in found.not_evaluated[0].reason
    assert found.not_evaluated[0].reason.startswith(str(folders[0] / "c" / "mask.nii.gz"))


def test_names_that_contradict_each_other_are_a_note(folders: tuple[Path, Path]) -> None:
    (note,) = evaluate_folders(*folders).notes
    assert note == (
        "label 2 is 'Head' in the prediction and 'Posterior' in the reference; labels are compared by value"
    )


@pytest.mark.parametrize("bad", ["predicted", "reference"])
def test_a_mask_that_can_t_be_read_is_listed(folders: tuple[Path, Path], bad: str) -> None:
    path = folders[0] / "b" / "mask.nii.gz" if bad == "predicted" else folders[1] / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    found = evaluate_folders(*folders)
    assert [case.case for case in found.cases] == ["a"]
    assert ("b", "unreadable") in [(item.case, item.code) for item in found.not_evaluated]


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none(folders: tuple[Path, Path], tolerance: float) -> None:
    with pytest.raises(UsageError, match="the tolerance is"):
        evaluate_folders(*folders, tolerance_mm=tolerance)


def test_the_document_is_strict_json_with_nulls(folders: tuple[Path, Path]) -> None:
    found = evaluate_folders(*folders)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(as_json(found), parse_constant=refuse)
    assert content == document(found) | {"cases": content["cases"]}
    assert list(content) == ["tolerance_mm", "ignored", "cases", "summary", "not_evaluated", "notes"]
    assert content["cases"][0]["labels"][1] == {
        "value": 2,
        "name": "Head",
        "state": "prediction empty",
        "dice": 0,
        "iou": 0,
        "accuracy": pytest.approx(117 / 120),
        "hd95_mm": None,
        "nsd": 0,
        "predicted_ml": 0,
        "reference_ml": pytest.approx(0.036),
    }
    posterior = content["summary"][1]
    assert posterior["states"] == {"scored": 1, "both empty": 0, "reference empty": 0, "prediction empty": 1}
    assert (posterior["metrics"]["dice"]["n"], posterior["metrics"]["hd95_mm"]["n"]) == (2, 1)
    assert posterior["metrics"]["hd95_mm"]["std"] is None


def test_tables_are_written_whole(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate_folders(*folders)
    target = tmp_path / "new" / "scores"
    write_tables(found, target)
    assert sorted(path.name for path in target.iterdir()) == ["metrics.csv", "metrics.json", "summary.csv"]
    with (target / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["value"], row["state"]) for row in rows] == [
        ("a", "1", "scored"),
        ("a", "2", "prediction empty"),
        ("a", "5", "both empty"),
        ("b", "1", "scored"),
        ("b", "2", "scored"),
        ("b", "5", "scored"),
    ]
    assert float(rows[0]["dice"]) == pytest.approx(4 / 6)
    assert (rows[1]["hd95_mm"], rows[2]["dice"], rows[2]["nsd"]) == ("", "", "")
    with (target / "summary.csv").open(newline="") as file:
        summary = {(row["name"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(summary) == 4 * 5
    five = summary["label 5", "dice"]
    assert (five["cases"], five["both_empty"], five["n"], five["mean"], five["std"]) == ("2", "1", "1", "1.0", "")
    assert (summary["mean of labels", "hd95_mm"]["n"], summary["mean of labels", "hd95_mm"]["value"]) == ("1", "")
    assert json.loads((target / "metrics.json").read_text()) == json.loads(as_json(found))


def test_a_folder_that_can_t_be_made(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be written to"):
        write_tables(evaluate_folders(*folders), tmp_path / "file" / "scores")


def shown(evaluation: Evaluation, width: int) -> str:
    console = Console(width=width, highlight=False, markup=False, emoji=False, color_system=None)
    with console.capture() as capture:
        for part in render(evaluation):
            console.print(part)
    return capture.get()


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_says_what_is_empty_and_what_is_absent(folders: tuple[Path, Path], width: int) -> None:
    text = shown(evaluate_folders(*folders), width)
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    assert "0.667 0.500 0.983 2.77 0.667 0.048 0.024" in flat
    assert "Head: prediction empty in 1 of 2 cases label 5: both empty in 1 of 2 cases" in flat
    assert "Not evaluated: 2 c: refused (grid-mismatch):" in flat
    assert "note: label 2 is 'Head'" in flat
    assert "…" not in text  # no number or name is cut


def test_many_rows_and_long_lists_are_cut_with_a_word(tmp_path: Path) -> None:
    for case in range(101):
        save(tmp_path / "out" / f"c{case:03d}.nii", bars(1, 1))
        save(tmp_path / "labels" / f"c{case:03d}.nii", bars(1, 1))
    for case in range(25):
        save(tmp_path / "labels" / f"x{case:03d}.nii", bars(1, 1))
    text = shown(evaluate_folders(tmp_path / "out", tmp_path / "labels"), 80)
    assert "202 rows of cases and labels are too many to show; -o DIR writes them" in " ".join(text.split())
    assert "c050" not in text
    assert "Summary of 101 cases" in text
    assert "Not evaluated: 25" in text
    assert "and 5 more; --json lists them all" in text


@pytest.mark.parametrize(("ml", "text"), [(0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")])
def test_volumes_have_the_digits_that_matter(ml: float, text: str) -> None:
    assert volume(ml) == text


def test_public_names() -> None:
    import volseg.evaluation

    assert volseg.evaluation.__all__ == [
        "CaseScore",
        "Evaluation",
        "LabelScore",
        "dice_per_label",
        "evaluate_folders",
        "evaluate_pair",
    ]


def test_ignored_voxels_are_in_no_metric(tmp_path: Path) -> None:
    predicted, reference = bars(6, 3), bars(2, 3)
    reference[4:, 1, 1] = 9  # two of the four voxels too many
    reference[0, 0, 0] = 9
    save(tmp_path / "out" / "a.nii.gz", predicted)
    save(tmp_path / "out" / "b.nii.gz", bars(1, 1))
    save(tmp_path / "ref" / "a.nii.gz", reference)
    save(tmp_path / "ref" / "b.nii.gz", np.full(SHAPE, 9, dtype=np.uint8))
    (tmp_path / "ref" / "dataset.json").write_text(json.dumps({"labels": {"1": "one", "2": "two", "9": "ignore"}}))
    found = evaluate_folders(tmp_path / "out", tmp_path / "ref", ignored=9)
    (case,) = found.cases
    one, two = case.labels
    # Judged: 117 of 120 voxels, the prediction's row is 4 long, the reference's 2, as in the hand-worked pair.
    assert [one.dice, one.iou, one.accuracy] == pytest.approx([4 / 6, 2 / 4, 115 / 117])
    assert one.hd95_mm == pytest.approx(1.5 + 0.85 * 1.5)
    assert [one.predicted_ml, one.reference_ml] == pytest.approx([0.048, 0.024])
    assert [two.dice, two.accuracy, case.accuracy] == pytest.approx([1, 1, 115 / 117])
    assert [(item.case, item.code) for item in found.not_evaluated] == [("b", "unsupported")]
    assert found.notes == ("3 voxels with the value 9 in the reference are left out",)
    assert document(found)["ignored"] == 9
    (taken,) = (case for case in evaluate_folders(tmp_path / "out", tmp_path / "ref").cases if case.case == "a")
    assert [score.value for score in taken.labels] == [1, 2, 9]
    assert taken.labels[0].dice == pytest.approx(4 / 8)


def test_an_ignored_value_that_no_reference_has_is_told(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", bars(3, 3))
    found = evaluate_folders(tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", ignored=300)  # beyond the file's uint8
    assert found.notes == ("no reference has a voxel of the ignored value 300",)
    assert found.cases[0].labels[0].dice == 1
