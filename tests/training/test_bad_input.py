"""Datasets as they come: each gives an error that names what is wrong, or trains and says what is unusual."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.tiny import Array, blob_case, tiny_recipe, write_dataset
from volseg.datasets.cases import load_dataset
from volseg.errors import InputError, RefusalError, UsageError
from volseg.training import loop
from volseg.training.run import Budget, train_fold

TRAINING = {"batch_size": 1, "validations": 1, "folds": 2}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)


def train(folder: Path, cases: list[tuple[Array, Array]], fold: int | None = None, **changes: Any) -> list[str]:
    """Train on it; what was told."""
    told: list[str] = []
    data = write_dataset(folder / "data", {f"case_{number}": case for number, case in enumerate(cases)})
    recipe = tiny_recipe(**{"window": [8, 8, 8], "training": TRAINING, **changes})
    progress = train_fold(
        recipe, load_dataset(data), folder / "run", fold, Budget(steps=2),
        resume=False, report=lambda *_: None, note=told.append,
    )  # fmt: skip
    assert progress.step == 2
    assert all(np.isfinite(row["loss"]) for row in progress.history)
    return told


def with_labels(seed: int, **voxels: int) -> tuple[Array, Array]:
    """A case in which only the given labels' single voxels are labelled: one=1."""
    image, labels = blob_case(seed)
    labels[:] = 0
    for number, value in enumerate(voxels.values()):
        labels[3 + 5 * number, 4, 5] = value
    return image, labels


def test_labels_of_one_voxel_train_and_are_scored(tmp_path: Path) -> None:
    assert train(tmp_path, [with_labels(n, a=1, b=2) for n in range(2)], fold=0) == []
    (case,) = json.loads((tmp_path / "run" / "fold_0" / "scores.json").read_text())["cases"]
    assert all(label["reference_ml"] == 0.001 for label in case["labels"])


def test_a_value_that_the_recipe_doesn_t_name_is_refused_with_file_and_value(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match=r"labelsTr/case_1\.nii\.gz: .*\b7\b"):
        train(tmp_path, [blob_case(0), with_labels(1, a=1, b=7)])


def test_a_fraction_among_the_labels_is_refused_and_whole_floats_train(tmp_path: Path) -> None:
    image, labels = blob_case(1)
    whole = labels.astype(np.float64)
    assert train(tmp_path / "whole", [blob_case(0), (image, whole)]) == []
    whole[3, 4, 5] = 1.1
    with pytest.raises(InputError, match=r"labelsTr/case_1\.nii\.gz: .*1\.1") as caught:
        train(tmp_path / "fraction", [blob_case(0), (image, whole)])
    assert caught.value.code == "unsupported"


def test_a_case_with_an_empty_label_trains(tmp_path: Path) -> None:
    told = train(tmp_path, [blob_case(0), with_labels(1)], fold=0)
    assert all("case_1" in text or "no training case" in text for text in told)


def test_labels_that_no_case_has_are_told(tmp_path: Path) -> None:
    told = train(tmp_path, [with_labels(0, a=1), with_labels(1, a=1)])
    assert told == ["no training case has a voxel of 'Posterior hippocampus': the network will not learn it"]


def test_a_dataset_without_any_labelled_voxel_is_told(tmp_path: Path) -> None:
    told = train(tmp_path, [with_labels(0), with_labels(1)])
    assert told == ["no training case has a labelled voxel: the network will learn to find nothing"]


def test_four_slices(tmp_path: Path) -> None:
    cases = [tuple(array[:, :, 6:10] for array in blob_case(n)) for n in range(2)]
    told = train(tmp_path, [(image, labels) for image, labels in cases], fold=0)
    assert told == [
        "every training case is smaller than the window of 8 x 8 x 8 (at most 20 x 18 x 4): 0 is put around them"
    ]


def test_a_window_larger_than_every_case(tmp_path: Path) -> None:
    told = train(tmp_path, [blob_case(n) for n in range(2)], fold=0, window=[24, 24, 24])
    assert told == [
        "every training case is smaller than the window of 24 x 24 x 24 (at most 20 x 18 x 16): 0 is put around them"
    ]


def test_two_cases_of_one_name(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a": blob_case(0)})
    content = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({"training": content["training"] * 2}))
    with pytest.raises(UsageError, match=r"dataset\.json: several cases have one name: a"):
        load_dataset(tmp_path)


def test_voxels_that_are_nan(tmp_path: Path) -> None:
    image, labels = blob_case(1)
    image[3, 4, 5] = np.nan
    with pytest.raises(InputError, match=r"imagesTr/case_1\.nii\.gz: .*NaN") as caught:
        train(tmp_path, [blob_case(0), (image, labels)])
    assert caught.value.code == "not-finite"


def test_one_case_trains_without_a_fold_and_can_t_be_held_out(tmp_path: Path) -> None:
    assert train(tmp_path, [blob_case(0)]) == []
    with pytest.raises(UsageError, match="no case to train on: the recipe holds out, or the fold validates with"):
        train(tmp_path, [blob_case(0)], fold=0)
    with pytest.raises(UsageError, match="fold 1 holds out no case: 1 cases don't fill 2 folds"):
        train(tmp_path, [blob_case(0)], fold=1)
