"""Cases in memory: split, labels, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch

from tests.helpers.dicom_files import write_series
from tests.helpers.dicom_objects import save, segmentation
from tests.helpers.tiny import blob_case, scan, tiny_recipe, write_nifti
from volseg.datasets.cases import Case
from volseg.errors import GeometryError, InputError, RefusalError
from volseg.training.dataset import TrainingCase, prepare_case, some_voxels
from volseg.training.folds import split


def named(*names: str) -> list[Case]:
    return [Case(name, (Path(f"{name}.nii"),), Path(f"{name}_label.nii")) for name in names]


CASES = named(*(f"case_{number:02d}" for number in range(13)))


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def test_folds_part_the_cases() -> None:
    recipe = tiny_recipe(training={"folds": 4, "held_out": ["case_03", "case_07"]})
    validated: list[str] = []
    for fold in range(4):
        training, validation = split(CASES, recipe, fold)
        assert not set(names(training)) & set(names(validation))
        assert len(training) + len(validation) == 11
        assert len(validation) in (2, 3)
        validated += names(validation)
    assert sorted(validated) == sorted({case.name for case in CASES} - {"case_03", "case_07"})


def test_without_a_fold_all_but_the_held_out_are_trained_on() -> None:
    training, validation = split(CASES, tiny_recipe(training={"held_out": ["case_00", "case_12", "absent"]}), None)
    assert names(training) == [f"case_{number:02d}" for number in range(1, 12)]
    assert validation == []


def test_the_split_follows_from_the_seed_and_not_from_the_order() -> None:
    recipe, other = tiny_recipe(training={"seed": 5}), tiny_recipe(training={"seed": 6})
    assert split(CASES, recipe, 1) == split(CASES[::-1], recipe, 1)
    assert split(CASES, recipe, 1) != split(CASES, other, 1)


def write_case(folder: Path, image: Any, label: Any, name: str = "case") -> Case:
    paths = [write_nifti(folder / kind / f"{name}.nii.gz", array) for kind, array in (("i", image), ("l", label))]
    return Case(name, (paths[0],), paths[1])


@pytest.fixture
def blob(tmp_path: Path) -> TrainingCase:
    return prepare_case(write_case(tmp_path, *blob_case(0)), tiny_recipe())


def test_regions_are_compared_as_they_are_painted(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    regions = [
        {"value": 10, "name": "whole", "colour": [1, 2, 3], "members": [1, 2]},
        {"value": 20, "name": "core", "colour": [3, 2, 1], "members": [2]},
    ]
    case = prepare_case(write_case(tmp_path, image, labels), tiny_recipe(output="sigmoid", labels=regions))
    assert np.array_equal(case.reference.array, 10 * labels)
    assert np.array_equal(case.labels_DHW.numpy(), labels)


def test_a_prepared_case_holds_what_was_read(blob: TrainingCase) -> None:
    image, labels = blob_case(0)
    assert np.array_equal(blob.labels_DHW.numpy(), labels)
    assert np.array_equal(blob.reference.array, labels)
    normalised = (image - image.mean(dtype=float)) / image.std(dtype=float)
    assert blob.prepared.tensor_CDHW[0].numpy() == pytest.approx(normalised, abs=1e-5)
    for value in (1, 2):
        assert np.array_equal(blob.foreground[value].numpy(), np.argwhere(labels == value))
    assert blob.intensity == (tuple(np.percentile(image, [0.5, 99.5])),)


def refused(case: Case, **changes: Any) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        prepare_case(case, tiny_recipe(**changes))
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_unknown_label_value_is_refused_by_number(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    labels[0, 0, 0] = 7
    case = write_case(tmp_path, image, labels)
    error = refused(case)
    assert str(case.label) in str(error)
    assert "[7]" in str(error)
    assert "[1, 2]" in str(error)


@pytest.mark.parametrize("odd", [1.1, 0.5, -0.25])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path: Path, odd: float) -> None:
    image, labels = blob_case(0)
    wrong = labels.astype(np.float64)
    wrong[2, 3, 4] = odd
    case = write_case(tmp_path, image, wrong)
    error = refused(case)
    assert str(case.label) in str(error)
    assert repr(odd) in str(error)


def test_whole_numbers_stored_as_floats_are_fine(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    case = prepare_case(write_case(tmp_path, image, labels.astype(np.float64)), tiny_recipe())
    assert np.array_equal(case.labels_DHW.numpy(), labels)


def test_a_negative_label_is_refused(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    negative = labels.astype(np.int16)
    negative[0, 0, 0] = -1
    assert "values from -1 to 2" in str(refused(write_case(tmp_path, image, negative)))


def test_a_label_map_of_several_values_a_voxel_is_refused(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    error = refused(write_case(tmp_path, image, np.stack([labels, labels], axis=-1)))
    assert isinstance(error, GeometryError)
    assert "this holds 2" in str(error)


def test_grids_that_differ_are_refused(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    case = write_case(tmp_path, image, labels)
    moved = np.eye(4)
    moved[1, 3] = 0.5
    write_nifti(case.label, labels, moved)
    error = refused(case)
    assert isinstance(error, GeometryError)
    assert error.code == "grid-mismatch"
    assert str(case.label) in str(error)
    assert str(case.images[0]) in str(error)
    assert "0.5 mm" in str(error)


def test_channels_on_two_grids_and_too_few_channels_are_refused(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    case = write_case(tmp_path, image, labels)
    two = {"channels": [{"name": name, "modalities": ["MR"]} for name in ("T1", "T2")]}
    error = refused(case, **two)
    assert isinstance(error, InputError)
    assert error.code == "channels"
    second = write_nifti(tmp_path / "second.nii.gz", scan((20, 18, 17)))
    error = refused(Case("case", (case.images[0], second), case.label), **two)
    assert error.code == "grid-mismatch"
    assert str(second) in str(error)


def test_several_channels_are_joined_in_their_order(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    case = write_case(tmp_path, image, labels)
    second = write_nifti(tmp_path / "second.nii.gz", image * -1)
    two = {"channels": [{"name": name, "modalities": ["MR"]} for name in ("T1", "T2")]}
    prepared = prepare_case(Case("case", (case.images[0], second), case.label), tiny_recipe(**two))
    tensor = prepared.prepared.tensor_CDHW
    assert tensor.shape == (2, 20, 18, 16)
    torch.testing.assert_close(tensor[0], -tensor[1])
    assert len(prepared.intensity) == 2


def test_channels_that_the_dataset_names_come_in_the_recipe_s_order(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    case = write_case(tmp_path, image, labels)
    second = write_nifti(tmp_path / "second.nii.gz", image * -1)
    named = Case("case", (second, case.images[0]), case.label, channels=("t2f", "t1c"))
    one, two = (
        prepare_case(named, tiny_recipe(channels=[{"name": name, "modalities": ["MR"]} for name in names]))
        for names in (("T1c",), ("T1c", "FLAIR"))
    )
    assert one.prepared.tensor_CDHW.shape[0] == 1
    torch.testing.assert_close(two.prepared.tensor_CDHW[:1], one.prepared.tensor_CDHW)
    torch.testing.assert_close(two.prepared.tensor_CDHW[1], -two.prepared.tensor_CDHW[0])
    assert two.intensity[0] == one.intensity[0] == tuple(np.percentile(image, [0.5, 99.5]))
    with pytest.raises(InputError, match="none called T1n"):
        prepare_case(named, tiny_recipe(channels=[{"name": "T1n", "modalities": ["MR"]}]))


def dicom_case(folder: Path, masks: Sequence[npt.NDArray[np.bool_]], names: Sequence[str]) -> Case:
    """A case whose image is a DICOM series, and whose label is a SEG of `masks` [i, j, k]."""
    image, _ = blob_case(0)
    paths = write_series(folder / "series", image.astype(np.int16))
    seg = segmentation([pydicom.dcmread(path) for path in paths], masks)
    for item, name in zip(seg.SegmentSequence, names, strict=True):
        item.SegmentLabel = name
    return Case("case", (folder / "series",), save(seg, folder / "mask.dcm"))


def test_segments_are_the_labels_of_their_names(tmp_path: Path) -> None:
    _, labels = blob_case(0)
    skull = np.zeros(labels.shape, dtype=bool)
    skull[:2] = True
    names = ["skull", "POSTERIOR hippocampus", "anterior  Hippocampus"]
    case = prepare_case(dicom_case(tmp_path, [skull, labels == 2, labels == 1], names), tiny_recipe(spacing_mm=None))
    assert np.array_equal(case.reference.array, labels)
    assert case.notes == ()
    # The model's grid is RAS, DICOM's LPS.
    assert np.array_equal(case.labels_DHW.numpy(), labels[::-1, ::-1])


def test_a_label_without_a_segment_is_empty_with_a_note(tmp_path: Path) -> None:
    _, labels = blob_case(0)
    case = prepare_case(dicom_case(tmp_path, [labels == 2], ["posterior hippocampus"]), tiny_recipe())
    assert np.array_equal(case.reference.array, 2 * (labels == 2))
    assert case.notes == ("no segment is called 'Anterior hippocampus': this label is empty",)


def test_segments_of_other_names_alone_are_refused(tmp_path: Path) -> None:
    _, labels = blob_case(0)
    error = refused(dicom_case(tmp_path, [labels == 1], ["Liver"]))
    assert "'Liver'" in str(error)
    assert error.code == "unsupported"


def test_regions_of_several_values_take_the_numbers_of_segments(tmp_path: Path) -> None:
    _, labels = blob_case(0)
    regions = [
        {"value": 10, "name": "whole", "colour": [1, 2, 3], "members": [1, 2]},
        {"value": 20, "name": "core", "colour": [3, 2, 1], "members": [2]},
    ]
    parts = dicom_case(tmp_path, [labels == 1, labels == 2], ["oedema", "core"])
    assert np.array_equal(
        prepare_case(parts, tiny_recipe(output="sigmoid", labels=regions)).reference.array, 10 * labels
    )
    three = dicom_case(tmp_path / "three", [labels == 1, labels == 9, labels == 2], ["oedema", "core", "x"])
    assert "[3]" in str(refused(three, output="sigmoid", labels=regions))


def test_an_ignored_label_is_background_in_the_reference_and_no_foreground(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    labels[:, :4] = 9
    case = write_case(tmp_path, image, labels)
    assert "[9]" in str(refused(case))
    prepared = prepare_case(case, tiny_recipe(training={"ignored_label": 9}))
    assert prepared.ignored is not None
    assert prepared.judged is not None
    assert np.array_equal(prepared.ignored, labels == 9)
    assert np.array_equal(prepared.labels_DHW.numpy(), labels)
    assert np.array_equal(prepared.reference.array, np.where(labels == 9, 0, labels))
    assert set(prepared.foreground) == {1, 2}
    assert np.array_equal(prepared.judged.numpy(), np.argwhere(labels != 9))


def test_regions_ignore_a_label_too(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    labels[:, :4] = 9
    regions = [
        {"value": 10, "name": "whole", "colour": [1, 2, 3], "members": [1, 2]},
        {"value": 20, "name": "core", "colour": [3, 2, 1], "members": [2]},
    ]
    recipe = tiny_recipe(output="sigmoid", labels=regions, training={"ignored_label": 9})
    prepared = prepare_case(write_case(tmp_path, image, labels), recipe)
    assert np.array_equal(prepared.reference.array, np.where(labels == 9, 0, 10 * labels))
    assert set(prepared.foreground) == {1, 2}


def test_nothing_to_ignore_and_everything_ignored(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    recipe = tiny_recipe(training={"ignored_label": 9})
    whole = prepare_case(write_case(tmp_path, image, labels), recipe)
    assert (whole.judged, whole.ignored) == (None, None)
    labels[:] = 9
    assert "ignored label 9 alone" in str(
        refused(write_case(tmp_path / "nothing", image, labels), training={"ignored_label": 9})
    )


def test_a_label_too_small_for_the_model_s_grid_is_told(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    labels[labels == 2] = 0
    labels[5, 5, 5] = 2
    case = write_case(tmp_path, image, labels)
    assert prepare_case(case, tiny_recipe()).notes == ()
    coarse = prepare_case(case, tiny_recipe(spacing_mm=[3.0, 3.0, 3.0]))
    assert coarse.notes == ("labels [2] have no voxel on the model's grid: they are too small for its spacing",)
    assert set(coarse.foreground) == {1}


def test_of_many_voxels_a_choice_is_kept_that_is_always_the_same() -> None:
    mask = torch.zeros((30, 31, 32), dtype=torch.bool)
    mask[2:, :, 5:] = True
    chosen = some_voxels(mask)
    assert chosen.shape == (10_000, 3)
    assert len(torch.unique(chosen, dim=0)) == 10_000
    assert bool(mask[tuple(chosen.long().T)].all())
    assert torch.equal(chosen, some_voxels(mask))
    assert (chosen.amin(0).tolist(), chosen.amax(0).tolist()) == ([2, 0, 5], [29, 30, 31])
