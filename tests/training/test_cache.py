"""Prepared cases on disk: the same as freshly prepared ones, and made again whenever anything differs."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.tiny import blob_case, tiny_recipe, write_nifti
from volseg.datasets.cases import Case
from volseg.training import cache as module
from volseg.training.cache import CaseCache, cache_key
from volseg.training.dataset import TrainingCase, prepare_case

OBLIQUE = np.array([[0, 1.5, 0, 7], [-1, 0, 0.1, 3], [0, 0, 2, -4], [0, 0, 0, 1.0]])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    image, labels = blob_case(0)
    image[:2] = 0
    paths = [write_nifti(tmp_path / kind / "a.nii.gz", array, OBLIQUE) for kind, array in (("i", image), ("l", labels))]
    return Case("a", (paths[0],), paths[1])


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that were prepared and not taken from the disk."""
    names: list[str] = []

    def counted(case: Case, recipe: Any) -> TrainingCase:
        names.append(case.name)
        return prepare_case(case, recipe)

    monkeypatch.setattr(module, "prepare_case", counted)
    return names


RECIPE = tiny_recipe(spacing_mm=[1.0, 1.2, 1.0], crop="nonzero")


def test_a_case_from_the_disk_is_the_case(tmp_path: Path, case: Case, prepared: list[str]) -> None:
    store = CaseCache(tmp_path / "cache", RECIPE)
    store.get(case)
    found, fresh = store.get(case), prepare_case(case, RECIPE)
    assert prepared == ["a"]
    assert found.name == fresh.name
    assert torch.equal(found.prepared.tensor_CDHW, fresh.prepared.tensor_CDHW)
    assert torch.equal(found.labels_DHW, fresh.labels_DHW)
    assert found.labels_DHW.dtype == fresh.labels_DHW.dtype
    assert found.prepared.crop is not None
    for name in ("axes", "crop", "nearest_axis", "zoomed", "part"):
        assert getattr(found.prepared, name) == getattr(fresh.prepared, name)
    for ours, theirs in (
        (found.prepared.grid, fresh.prepared.grid),
        (found.reference.geometry, fresh.reference.geometry),
    ):
        assert ours.shape == theirs.shape
        assert np.array_equal(ours.affine, theirs.affine)
    assert np.array_equal(found.reference.array, fresh.reference.array)
    assert found.reference.array.dtype == fresh.reference.array.dtype
    assert found.reference.labels == fresh.reference.labels
    assert list(found.foreground) == list(fresh.foreground)
    assert all(torch.equal(found.foreground[value], fresh.foreground[value]) for value in fresh.foreground)
    assert (found.intensity, found.notes) == (fresh.intensity, fresh.notes)
    assert store.bytes() > found.prepared.tensor_CDHW.nbytes


def test_a_key_is_of_what_the_files_hold_and_of_the_preparation_alone(tmp_path: Path, case: Case) -> None:
    key = cache_key(case, RECIPE)
    moved = replace(case, name="b", images=(Path(shutil.copy(case.images[0], tmp_path / "other.nii.gz")),))
    assert cache_key(moved, RECIPE) == key
    for same in ({"window": [8, 8, 8]}, {"training": {"seed": 5}}, {"network": {"features": [2, 4]}}, {"version": "2"}):
        assert cache_key(case, tiny_recipe(spacing_mm=[1.0, 1.2, 1.0], crop="nonzero", **same)) == key
    for other in ({"crop": "none"}, {"spacing_mm": [1.0, 1.0, 1.0]}, {"intensity": {"scheme": "minmax"}}):
        changed: dict[str, Any] = {"spacing_mm": [1.0, 1.2, 1.0], "crop": "nonzero", **other}
        assert cache_key(case, tiny_recipe(**changed)) != key
    content = bytearray(case.label.read_bytes())
    content[4:8] = b"\0\0\0\1"  # the time in gzip's header
    case.label.write_bytes(content)
    os.utime(case.label, ns=(1, 1))
    assert cache_key(case, RECIPE) != key


def test_what_an_interrupted_run_left_is_never_read(tmp_path: Path, case: Case, prepared: list[str]) -> None:
    store = CaseCache(tmp_path / "cache", RECIPE)
    store.get(case)
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.rename(path.with_name(f".{path.name}.0.part"))
    store.get(case)
    assert prepared == ["a", "a"]
    path.write_bytes(whole[: len(whole) // 2])
    assert torch.equal(store.get(case).labels_DHW, prepare_case(case, RECIPE).labels_DHW)
    assert prepared == ["a", "a", "a"]
    assert path.read_bytes() == whole


def test_a_full_disk_keeps_cases_in_memory_and_says_so_once(
    tmp_path: Path, case: Case, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=module.RESERVE))
    store = CaseCache(tmp_path / "cache", RECIPE, told.append)
    for _ in range(2):
        assert torch.equal(store.get(case).labels_DHW, prepare_case(case, RECIPE).labels_DHW)
    problem = "less than 1 GiB would be left on the disk; from a on, prepared cases are held in memory alone"
    assert told == [f"{tmp_path / 'cache'}: {problem}"]
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    told.clear()
    CaseCache(tmp_path / "file", RECIPE, told.append).get(case)
    assert len(told) == 1
    assert "file: File exists; from a on" in told[0]


def test_masks_that_change_their_names_are_another_case(tmp_path: Path, case: Case) -> None:
    """Other files' names say nothing: these say which structure it is."""
    folder = tmp_path / "segmentations"
    for name in ("a", "b"):
        write_nifti(folder / f"{name}.nii.gz", blob_case(0)[1] % 2)
    masks = replace(case, label=folder)
    before = cache_key(masks, RECIPE)
    assert cache_key(replace(case, label=folder.rename(tmp_path / "other")), RECIPE) != before
    (tmp_path / "other").rename(folder)
    (folder / "b.nii.gz").rename(folder / "c.nii.gz")
    assert cache_key(masks, RECIPE) != before
    (folder / "c.nii.gz").rename(folder / "b.nii.gz")
    assert cache_key(masks, RECIPE) == before
