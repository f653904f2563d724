"""Datasets as they come: what the plan of each says, or why there is none. The tests of training have the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.described_datasets import NAMED, dataset
from tests.helpers.tiny import Array, blob_case, write_nifti
from volseg.errors import UsageError
from volseg.network.unet import check_window
from volseg.planning.cost import Machine
from volseg.planning.fingerprint import take_fingerprint
from volseg.planning.plan import Plan, make_plan

Case = tuple[Array, Array]


def planned(path: Path) -> Plan:
    """A plan, whose network takes its window."""
    plan = make_plan(take_fingerprint(path), Machine(1, bf16=False))
    check_window(plan.recipe.window, plan.recipe.network)
    return plan


def one_voxel(seed: int) -> Case:
    image, labels = blob_case(seed)
    labels[:] = 0
    labels[3, 4, 5], labels[9, 4, 5] = 1, 2
    return image, labels


def test_labels_of_one_voxel_keep_the_cases_spacing(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, {f"case_{n}": one_voxel(n) for n in range(2)}, **NAMED))
    assert plan.recipe.spacing_mm == (1.0, 1.0, 1.0)
    assert plan.notes == tuple(
        f"{name} has 10 voxels or fewer in 2 of 2 cases (case_0, case_1)" for name in ("dark", "bright")
    )


def test_a_case_without_a_label_is_told(tmp_path: Path) -> None:
    image, labels = blob_case(1)
    plan = planned(dataset(tmp_path, {"a": blob_case(0), "b": (image, labels * 0)}, **NAMED))
    assert [label.name for label in plan.recipe.labels] == ["dark", "bright"]
    assert plan.notes == ("dark is absent in 1 of 2 cases (b)", "bright is absent in 1 of 2 cases (b)")


def test_four_slices_and_a_window_larger_than_every_case(tmp_path: Path) -> None:
    cases = {f"case_{n}": blob_case(n) for n in range(2)}
    thin = {name: (image[:, :, 6:10], labels[:, :, 6:10]) for name, (image, labels) in cases.items()}
    plan = planned(dataset(tmp_path, thin, **NAMED))
    recipe = plan.recipe
    assert recipe.window == (20, 20, 4)  # of 20 x 18 x 4 voxels: what the strides need
    assert all(step[2] == 1 for step in recipe.network.stage_strides)
    assert plan.notes == ("fewer than 8 slices in 2 of 2 cases (case_0, case_1): the network doesn't halve them",)


def test_one_case(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, {"a": blob_case(0)}, **NAMED))
    assert plan.notes == ("one case: no fold can be held out, so train without --fold; nothing says how well it does",)


@pytest.mark.parametrize("kind", ["msd", "csv"])
def test_two_cases_of_one_name(kind: str, tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"a": blob_case(0)})
    if kind == "csv":
        folder = tmp_path / "table.csv"
        folder.write_text("image,label\n" + "imagesTr/a.nii.gz,labelsTr/a.nii.gz\n" * 2)
    else:
        entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
        dataset(tmp_path, {"a": blob_case(0)}, training=[entry, entry])
    with pytest.raises(UsageError, match="several cases have one name: a"):
        take_fingerprint(folder)


def test_a_csv_of_two_channels_and_labels_without_names(tmp_path: Path) -> None:
    rows = ["case,image_0,image_1,label"]
    for n in range(2):
        image, labels = blob_case(n)
        for name, array in {"t1": image, "t2": 2 * image, "mask": labels.astype(np.float32)}.items():
            write_nifti(tmp_path / f"{name}_{n}.nii.gz", array)
        rows.append(f"case_{n},t1_{n}.nii.gz,t2_{n}.nii.gz,mask_{n}.nii.gz")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    recipe = planned(tmp_path / "table.csv").recipe
    assert len(recipe.channels) == 2
    assert [(label.value, label.name) for label in recipe.labels] == [(1, "label 1"), (2, "label 2")]


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        (lambda image, labels: (image * np.where(labels, np.nan, 1), labels), "not-finite", "NaN"),
        (lambda image, labels: (image, labels * 1.1), "unsupported", "1.1"),
        (lambda image, labels: (image, labels * 4), "unsupported", "[4, 8]"),
    ],
)
def test_no_plan_of_a_case_that_can_t_be_used(spoil: Any, code: str, told: str, tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"a": blob_case(0), "b": spoil(*blob_case(1))}, **NAMED)
    (problem,) = take_fingerprint(folder).problems
    assert (problem.case, problem.code) == ("b", code)
    assert told in problem.reason
