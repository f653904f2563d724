"""Who is held out together, and that a run stays with its folds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny import tiny_recipe
from volseg.datasets.cases import Case
from volseg.errors import UsageError
from volseg.training.folds import check_splits, make_splits, patient_of, read_splits, split, write_splits


def case(name: str, patient: str | None = None) -> Case:
    return Case(name, (Path(f"{name}.nii"),), Path(f"{name}_label.nii"), patient)


@pytest.mark.parametrize(
    ("name", "patient", "expected"),
    [
        ("scan_7", None, "scan_7"),
        ("scan_7", "p3", "p3"),
        ("sub-01_ses-2_T1w", None, "sub-01"),
        ("sub-01", None, "sub-01"),
        ("sub-01_ses-2_T1w", "p3", "p3"),
        ("sub-01.old", None, "sub-01.old"),
        ("resub-01_x", None, "resub-01_x"),
    ],
)
def test_whose_scan_it_is(name: str, patient: str | None, expected: str) -> None:
    assert patient_of(case(name, patient)) == expected


def test_folds_of_single_scans_are_every_fifth_of_the_shuffled_names() -> None:
    """Models that were trained before patients were known keep their folds."""
    cases = [case(f"case_{number:02d}") for number in range(13)]
    shuffled = [c.name for c in cases]
    random.Random(3).shuffle(shuffled)
    recipe = tiny_recipe(training={"folds": 5, "seed": 3})
    for fold in range(5):
        training, validation = split(cases, recipe, fold)
        assert [c.name for c in validation] == shuffled[fold::5]
        assert [c.name for c in training] == [name for name in shuffled if name not in shuffled[fold::5]]


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from("abcdefg")), min_size=1, max_size=20, unique_by=lambda p: p[0]
    ),
    st.integers(2, 6),
)
def test_a_patient_is_never_on_both_sides(scans: list[tuple[int, str]], folds: int) -> None:
    cases = [case(f"c{number}", patient) for number, patient in scans]
    recipe = tiny_recipe(training={"folds": folds})
    validated = []
    for fold in range(folds):
        training, validation = split(cases, recipe, fold)
        assert not {c.patient for c in training} & {c.patient for c in validation}
        assert len(training) + len(validation) == len(cases)
        validated += validation
    assert sorted(c.name for c in validated) == sorted(c.name for c in cases)
    largest = max(sum(p == patient for _, p in scans) for _, patient in scans)
    sizes = [len(part) for part in make_splits(cases, recipe).folds]
    assert max(sizes) - min(sizes) <= largest  # as even as whole patients allow


def test_a_run_stays_with_its_cases(tmp_path: Path) -> None:
    recipe = tiny_recipe(training={"folds": 2, "held_out": ["c"]})
    splits = make_splits([case("a"), case("b"), case("c")], recipe)
    assert read_splits(tmp_path) is None
    check_splits(tmp_path, splits)
    write_splits(tmp_path, splits)
    assert read_splits(tmp_path) == splits
    content = json.loads((tmp_path / "splits.json").read_text())
    assert sorted(name for part in content["folds"] for name in part) == ["a", "b"]
    assert (content["held_out"], content["seed"], content["patients"]) == (["c"], 0, 2)
    check_splits(tmp_path, splits)
    with pytest.raises(UsageError, match=r"splits\.json: .* the dataset lacks 1 \(b\) and adds 2 \(d, e\); go on"):
        check_splits(tmp_path, make_splits([case(name) for name in "acde"], recipe))
    cases = [case(name) for name in "abdefgh"]
    write_splits(tmp_path, make_splits(cases, recipe))
    with pytest.raises(UsageError, match="its cases are in other folds"):
        check_splits(tmp_path, make_splits([case(c.name, "p" if c.name in "ab" else None) for c in cases], recipe))


def test_damaged_folds_are_named(tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text('{"seed": 0}')
    with pytest.raises(UsageError, match=r"splits\.json: the folds of this run can't be read: folds"):
        read_splits(tmp_path)
