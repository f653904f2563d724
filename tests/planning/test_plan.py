"""Choices from a fingerprint, and the file that they are written to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.helpers.described_datasets import NAMED, dataset, sided, three
from tests.helpers.tiny import Array, blob_case, write_nifti
from volseg.config import Recipe, load_recipe
from volseg.datasets.cases import load_dataset
from volseg.planning.cost import Machine
from volseg.planning.fingerprint import take_fingerprint
from volseg.planning.plan import Plan, make_plan
from volseg.planning.probe import probe
from volseg.planning.written import Choice, content, text
from volseg.training import loop
from volseg.training.run import Budget, train_fold

MACHINE = Machine(2, bf16=False)


def planned(folder: Path, **limits: Any) -> Plan:
    return make_plan(take_fingerprint(folder), MACHINE, **limits)


def read_back(plan: Plan, path: Path) -> Recipe:
    path.write_text(plan.yaml("Measured: 1e-05 s."), encoding="utf-8")
    return load_recipe(path)


def test_the_sample_cases(sample_data: Path, root: Path, tmp_path: Path) -> None:
    """What differs from the recipe that the bundled model was trained with is what docs/plan.md lists."""
    plan = planned(sample_data / "hippocampus")
    assert read_back(plan, tmp_path / "recipe.yaml") == plan.recipe
    ours = plan.recipe.model_dump(exclude={"name", "version", "description", "labels", "postprocess", "channels"})
    theirs = load_recipe(root / "pipelines" / "hippocampus.yaml").model_dump()
    changed = {key for key, value in ours.items() if value != theirs[key]}
    assert changed == {"network", "training"}
    assert {k for k, v in ours["network"].items() if v != theirs["network"][k]} == {
        "features",
        "strides",
        "kernels",
    } & {k for k, v in ours["network"].items() if v != theirs["network"][k]}
    assert ours["network"]["features"] == (16, 32, 64, 128)
    assert {k for k, v in ours["training"].items() if v != theirs["training"][k]} <= {"steps", "held_out", "batch_size"}


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = dataset(tmp_path, three(), **NAMED)
    assert planned(folder).yaml("x") == planned(folder).yaml("x")


def test_names_and_notes(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, three(), **NAMED, description="line\none\x07 # {x: y}"))
    assert plan.recipe.name == "two-boxes"
    assert plan.recipe.description == "line one # {x: y}"
    assert [label.name for label in plan.recipe.labels] == ["dark", "bright"]
    assert len({label.colour for label in plan.recipe.labels}) == 2
    assert plan.recipe.channels[0].modalities == ("MR",)
    assert plan.recipe.training.folds == 3
    assert read_back(plan, tmp_path / "recipe.yaml") == plan.recipe


def test_every_choice_but_names_has_a_reason(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, three(), **NAMED))
    for choice in plan.choices:
        assert choice.reason or choice.section or choice.key in ("name", "version", "description"), choice.key


def hounsfield(seed: int) -> tuple[Array, Array]:
    image, labels = blob_case(seed)
    return (image - 1050).astype(np.float32), labels


@pytest.mark.parametrize("modality", ["CT", "x-rays"])
def test_ct_has_numbers_of_the_dataset(tmp_path: Path, modality: str) -> None:
    cases = {f"case_{n}": hounsfield(n) for n in range(3)}
    plan = planned(dataset(tmp_path, cases, **{**NAMED, "modality": {"0": modality}}))
    found = plan.recipe.intensity
    values = np.concatenate([image[labels > 0] for image, labels in cases.values()]).astype(np.float64)
    assert (found.scheme, found.use_mask) == ("fixed", False)
    assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()), abs=1e-3)
    assert found.clip == pytest.approx(np.percentile(values, [0.5, 99.5]), abs=1.0)
    assert plan.recipe.channels[0].modalities == ("CT",)
    assert ("correct it where that is wrong" in plan.yaml()) == (modality != "CT")


def test_what_is_mostly_0_is_masked_and_cropped(tmp_path: Path) -> None:
    cases = {}
    for n in range(3):
        image, labels = blob_case(n)
        image[:, :, 10:] = 0
        image[:, 14:] = 0
        cases[f"case_{n}"] = image, labels * (image != 0)
    recipe = planned(dataset(tmp_path, cases, **NAMED)).recipe
    assert (recipe.intensity.use_mask, recipe.crop) == (True, "nonzero")
    assert planned(dataset(tmp_path / "full", three(), **NAMED)).recipe.crop == "none"


def thick(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    cases = {}
    for n in range(3):
        labels = np.zeros((44, 40, 10), np.uint8)
        labels[8:30, 9:30, 2 + n : 7] = 1
        cases[f"case_{n}"] = (labels * 50 + rng.normal(0, 3, labels.shape)).astype(np.float32), labels
    folder = dataset(tmp_path, cases, labels={"background": 0, "lesion": 1})
    for path in (*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()):
        case = cases[path.name.removesuffix(".nii.gz")]
        write_nifti(path, case[0] if "images" in str(path) else case[1], np.diag([0.5, 0.6, 5.0, 1]))
    return folder


def test_thick_slices(tmp_path: Path) -> None:
    recipe = planned(thick(tmp_path)).recipe
    assert recipe.orientation == "SAR"
    assert recipe.spacing_mm == (5.0, 0.6, 0.5)
    assert recipe.resampling.separate_axis == "auto"
    assert recipe.network.stage_strides[1] == (1, 2, 2)
    assert recipe.network.stage_kernels[0] == (1, 3, 3)
    assert recipe.training.augmentation.rotation_degrees == (15.0, 0.0, 0.0)
    assert recipe.training.augmentation.flip_axes == (2,)
    assert recipe.mirroring.axes == (2,)


@pytest.mark.parametrize(
    ("labels", "flips", "swapped"),
    [
        ({"left a": 1, "right a": 2}, (0,), ((1, 2),)),
        ({"left a": 1, "right a": 2, "c": 3}, (), ()),
        ({"x": 1, "y": 2, "z": 3}, (), ()),
    ],
)
def test_labels_with_sides(
    tmp_path: Path, labels: dict[str, int], flips: tuple[int, ...], swapped: tuple[Any, ...]
) -> None:
    cases = {f"case_{n}": sided(flip=False) for n in range(3)}
    cases = {name: (image, np.where(mask > len(labels), 0, mask)) for name, (image, mask) in cases.items()}
    recipe = planned(dataset(tmp_path, cases, labels=labels)).recipe
    found = recipe.training.augmentation
    assert (found.flip_axes, found.swapped_labels) == (flips, swapped)
    assert (recipe.mirroring.axes, recipe.mirroring.use) == ((), False)


def test_regions_that_overlap_and_an_ignored_label(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    recipe = planned(dataset(tmp_path, three(), labels=labels, regions_class_order=[1, 2])).recipe
    assert recipe.output == "sigmoid"
    assert [(label.value, label.members) for label in recipe.labels] == [(1, (1, 2)), (2, (2,))]
    assert recipe.training.ignored_label == 3


def test_channels_of_different_kinds(tmp_path: Path) -> None:
    image, labels = hounsfield(0)
    for name in "xyz":
        write_nifti(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", image)
        write_nifti(tmp_path / "imagesTr" / f"{name}_0001.nii.gz", np.abs(image))
        write_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", labels)
    names = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "a": 1, "b": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({**names, "file_ending": ".nii.gz"}))
    plan = planned(tmp_path)
    assert [each.scheme for each in plan.recipe.intensities] == ["fixed", "zscore"]
    assert [channel.modalities for channel in plan.recipe.channels] == [("CT",), ("PT",)]
    assert read_back(plan, tmp_path / "recipe.yaml") == plan.recipe


@pytest.mark.parametrize("folder", ["blobs", "thick"])
def test_a_planned_recipe_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    data = thick(tmp_path / "data") if folder == "thick" else dataset(tmp_path / "data", three(), **NAMED)
    plan = planned(data, minutes=0.1)
    recipe = read_back(plan, tmp_path / "recipe.yaml")
    monkeypatch.setattr(loop, "native_bf16", lambda: False)
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    progress = train_fold(
        recipe, load_dataset(data), tmp_path / "run", None, Budget(steps=1), resume=False, report=lambda *_: None
    )
    assert progress.step == 1


def test_a_probe_takes_time_and_changes_nothing(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, three(), **NAMED), minutes=0.1)
    state = torch.random.get_rng_state()
    seconds = probe(plan.recipe, MACHINE)
    assert 0 < seconds < 60
    assert torch.equal(torch.random.get_rng_state(), state)
    assert f"{seconds:.2f} s a step, {int(0.1 * 60 * 0.9 / seconds)} steps in 0.1 minutes" in plan.measured(seconds)


def test_a_step_slower_than_planned_is_said(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, three(), **NAMED))
    assert "That is 3 times the estimate: give it more --minutes." in plan.measured(3 * plan.step_s)
    assert "times the estimate" not in plan.measured(1.5 * plan.step_s)


def test_what_can_t_fit_is_a_note(tmp_path: Path) -> None:
    plan = planned(dataset(tmp_path, three(), **NAMED), memory=10**8)
    assert any("even the smallest network doesn't fit" in note for note in plan.notes)
    assert "Note: even the smallest" in " ".join(plan.yaml().replace("\n# ", " ").split())


def test_values_survive_yaml() -> None:
    values: dict[str, Any] = {
        "small": 1e-05,
        "large": np.float64(2.5e20),
        "words": 'no: "{yes}" # \\ ü',
        "list": [1, 2.0, True, None],
        "rows": [{"a": [1], "b": {"c": "d"}}, {"a": [], "b": "x"}],
        "empty": [],
    }
    choices = (*(Choice(key, value, "why\n- not") for key, value in values.items()), Choice("s", (Choice("t", "n"),)))
    assert content(choices) == {**values, "s": {"t": "n"}}
    assert yaml.safe_load(text(choices, ("head " * 100, "more"))) == content(choices)
    assert max(map(len, text(choices, ("head " * 100,)).splitlines())) <= 120


def test_a_refused_dataset_has_no_plan(tmp_path: Path) -> None:
    found = take_fingerprint(dataset(tmp_path, three(), **{**NAMED, "labels": {"0": "background", "1": "dark"}}))
    assert len(found.problems) == 3
    with pytest.raises(Exception, match="3 of 3 cases can't be used"):
        make_plan(found, MACHINE)
    with pytest.raises(Exception, match="no case has a voxel"):
        make_plan(dataclasses.replace(found, problems=()), MACHINE)
