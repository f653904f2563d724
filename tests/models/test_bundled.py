"""The model that comes with volseg, and the recipes that ship."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

import volseg
from volseg.config import load_recipe
from volseg.datasets.cases import load_dataset
from volseg.models import bundled_models, model_path
from volseg.models.folder import read_model

RECIPES = sorted((Path(__file__).resolve().parents[2] / "pipelines").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_is_named_after_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_each_bundled_model_is_that_of_a_recipe(root: Path) -> None:
    assert "hippocampus" in bundled_models()
    for name in bundled_models():
        assert read_model(model_path(name)).manifest.recipe == load_recipe(root / "pipelines" / f"{name}.yaml")


def test_the_sample_cases_were_never_trained_on(root: Path, sample_data: Path) -> None:
    dozen = {case.name for case in load_dataset(sample_data / "hippocampus")}
    trained_on = set(read_model(model_path("hippocampus")).manifest.trained_on.cases)
    assert len(dozen) == 12
    assert len(trained_on) == 183
    assert not dozen & trained_on
    assert dozen == set(load_recipe(root / "pipelines" / "hippocampus.yaml").training.held_out)


def test_it_was_trained_on_the_others(shared_data: Path, sample_data: Path) -> None:
    everything = {case.name for case in load_dataset(shared_data / "hippocampus")}
    dozen = {case.name for case in load_dataset(sample_data / "hippocampus")}
    assert set(read_model(model_path("hippocampus")).manifest.trained_on.cases) == everything - dozen


def test_it_is_small_and_whole() -> None:
    folder = read_model(model_path("hippocampus"))
    for fold in folder.manifest.weights:
        folder.weights(fold)
    assert sum(path.stat().st_size for path in (folder.path / "weights").iterdir()) <= 5_000_000
    trained_on = folder.manifest.trained_on
    assert 0 < trained_on.minutes * (trained_on.threads or 0) <= 2 * 30
    card = (folder.path / "CARD.md").read_text()
    assert "CC-BY-SA" in card
    assert "Task04" in card


def test_it_segments_cases_that_it_never_saw(sample_data: Path) -> None:
    """Mean Dice of the two labels over the dozen, with the default options, computed here from voxel counts."""
    model = volseg.load_model("hippocampus")
    dice = []
    for case in load_dataset(sample_data / "hippocampus"):
        mask = model.predict(volseg.load(case.images[0])).array
        truth = np.asarray(nibabel.load(case.label).dataobj)
        for value in (1, 2):
            both = np.count_nonzero((mask == value) & (truth == value))
            dice.append(2 * both / (np.count_nonzero(mask == value) + np.count_nonzero(truth == value)))
    assert len(dice) == 24
    assert np.mean(dice) >= 0.85
    assert min(dice) >= 0.5
