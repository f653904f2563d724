"""Cascades of nnU-Net: both stages in one model folder, found, held together by their hashes, and run one by one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.nnunet_suite import RECORDED, results_of, unpacked
from volseg.errors import ModelError, RefusalError
from volseg.events import Event, Planned, Progress
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.loaders import find
from volseg.models.folder import read_model
from volseg.models.nnunet import import_nnunet
from volseg.volume import Volume

LOWRES = "nnUNetTrainer__nnUNetPlans__3d_lowres"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of the second stage, the first's beside them."""
    return results_of(unpacked(RECORDED / "cascade_of_regions.zip", tmp_path))


@pytest.fixture
def model(results: Path, tmp_path: Path) -> Model:
    return load_model(import_nnunet(results, tmp_path / "model").path)


def scan_of(results: Path) -> Volume:
    (candidate,) = find(results.parents[1] / "images").candidates
    return candidate.load()


def change(path: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_models_hash_covers_the_first_stage(results: Path, tmp_path: Path) -> None:
    model = import_nnunet(results, tmp_path / "m")
    first = tmp_path / "m" / "stage1" / "model.json"
    assert model.stage1 is not None
    assert model.manifest.stage1 == model.stage1.sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    assert model.stage1.manifest.recipe.spacing_mm == (3.1, 2.3, 2.2)
    assert "second stage of a cascade" in (tmp_path / "m" / "CARD.md").read_text()
    first.write_text(first.read_text().replace('"tile_step": 0.5', '"tile_step": 0.6'))
    with pytest.raises(ModelError, match=r"stage1/model\.json: the first stage was changed"):
        read_model(tmp_path / "m")
    shutil.rmtree(first.parent)
    with pytest.raises(ModelError, match="stage1: not a model folder"):
        read_model(tmp_path / "m")


def test_a_first_stage_that_lies_elsewhere_is_named(results: Path, tmp_path: Path) -> None:
    beside = import_nnunet(results, tmp_path / "beside")
    elsewhere = (results.parent / LOWRES).rename(tmp_path / "low")
    with pytest.raises(
        ModelError, match=r"its first, 3d_lowres, aren't in .*3d_lowres: name their folder with --stage1"
    ):
        import_nnunet(results, tmp_path / "none")
    assert import_nnunet(results, tmp_path / "named", stage1=elsewhere).sha256 == beside.sha256
    assert not (tmp_path / "none").exists()


def test_first_stages_that_are_none(results: Path, tmp_path: Path) -> None:
    low = results.parent / LOWRES
    with pytest.raises(ModelError, match="3d_lowres has no first stage: leave"):
        import_nnunet(low, tmp_path / "m", stage1=results)
    with pytest.raises(ModelError, match=r"holds 3d_cascade_fullres; the first stage of .* is 3d_lowres"):
        import_nnunet(results, tmp_path / "m", stage1=results)
    with pytest.raises(ModelError, match="the profile totalsegmentator is for single models"):
        import_nnunet(results, tmp_path / "m", "totalsegmentator")
    change(low / "dataset.json", lambda dataset: dataset["labels"].pop("spot"))
    with pytest.raises(ModelError, match=r"3d_lowres/dataset\.json: other channels or labels"):
        import_nnunet(results, tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": 0}, r"resampling_fn_seg_kwargs\.order"),
        ({"force_separate_z": True}, "resampling_fn_seg_kwargs: force_separate_z True isn't that of the images"),
    ],
)
def test_other_ways_to_resample_labels(changes: dict[str, Any], message: str, results: Path, tmp_path: Path) -> None:
    full = "3d_fullres"
    change(
        results / "plans.json",
        lambda plans: plans["configurations"][full]["resampling_fn_seg_kwargs"].update(changes),
    )
    with pytest.raises(ModelError, match=message):
        import_nnunet(results, tmp_path / "m")


def test_both_stages_are_accounted_for(model: Model, results: Path) -> None:
    scan = scan_of(results)
    heard: list[Event] = []
    prediction = Segmenter(model, Options(engine="torch")).segment(scan, heard.append)
    planned, *windows = heard
    assert isinstance(planned, Planned)
    told = [(event.stage, event.done, event.count) for event in windows if isinstance(event, Progress)]
    counts = {stage: count for stage, _, count in told}
    assert told == [(stage, done, counts[stage]) for stage in counts for done in range(counts[stage] + 1)]
    assert list(counts) == ["first stage", "second stage"]
    assert prediction.windows == sum(counts.values())
    assert {"preprocess", "stage1", "network", "restore"} <= prediction.seconds.keys()
    with pytest.raises(RefusalError, match="--memory allows"):
        Segmenter(model, Options(memory=planned.total // 3, engine="torch")).segment(scan)


def test_the_first_stage_runs_in_the_chosen_folds_that_it_has(model: Model, results: Path) -> None:
    assert model.stage1 is not None
    chosen = Segmenter(model, Options(folds=("1",), labels=("spot",), engine="torch")).stage1
    assert chosen is not None
    assert chosen.options == Options(folds=("1",), engine="torch")
    model.stage1.folder.manifest.weights.pop("1")
    other = Segmenter(model, Options(folds=("1",), engine="torch")).stage1
    assert other is not None
    assert other.options == Options(engine="torch")
    assert Segmenter(model, Options(folds=("1",), engine="torch")).segment(scan_of(results)).windows > 2
