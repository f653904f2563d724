"""``volseg train`` and the path from a dataset to a mask: train, pack, show, predict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import yaml

from tests.helpers.command import Command
from tests.helpers.dicom_files import write_series
from tests.helpers.dicom_objects import save, segmentation, structure_set
from tests.helpers.tiny import blob_case, model_of, tiny_recipe, write_dataset, write_nifti
from volseg.training import loop


@pytest.fixture
def volseg_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(loop, "native_bf16", lambda: False)
    monkeypatch.setattr(loop, "REPORTS", 3)
    return Command(monkeypatch, capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(4)})


def recipe(folder: Path, **changes: Any) -> Path:
    training = {"batch_size": 1, "validations": 2, "folds": 2, "steps": 4}
    content = tiny_recipe(**{"window": [8, 8, 8], "training": training, **changes}).model_dump(mode="json")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_from_a_dataset_to_a_mask(volseg_: Command, tmp_path: Path, data: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "model"
    done = volseg_("train", recipe(tmp_path), "--data", data, "-o", run, "--steps", 2)
    assert (done.code, done.out) == (0, f"{run}: finished. Make a model of it: volseg model pack {run} -o MODEL\n")
    assert "fold all  finished at step 2" in done.err
    done = volseg_("model", "pack", run, "-o", model)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{model}: model tiny with fold all\n"
    done = volseg_("model", "show", model)
    assert "trained on    4 cases, 2 steps" in done.out
    source = write_nifti(tmp_path / "scan.nii.gz", blob_case(9)[0])
    done = volseg_("predict", source, "-o", tmp_path / "out", "--model", model)
    assert done.code == 0
    mask = nibabel.load(tmp_path / "out" / "scan" / "mask.nii.gz")
    assert mask.shape == (20, 18, 16)
    assert np.array_equal(mask.affine, np.eye(4))
    result = json.loads((tmp_path / "out" / "scan" / "result.json").read_text())
    assert result["model"]["name"] == "tiny"


def test_every_fold(volseg_: Command, tmp_path: Path, data: Path) -> None:
    done = volseg_("train", recipe(tmp_path), "--data", data, "-o", tmp_path / "run", "--fold", "cv")
    assert done.code == 0
    for fold in (0, 1):
        assert re.search(rf"fold {fold}  step 4/4  Dice 0\.\d+ on held-out cases", done.err)
        assert f"fold {fold}  finished at step 4, best Dice 0." in done.err
        assert (tmp_path / "run" / f"fold_{fold}" / "best.pt").exists()
    table = done.err[done.err.index("Dice on held-out cases") :].splitlines()
    assert table[1].split() == ["Label", "Fold", "0", "Fold", "1", "Mean", "SD", "95", "%", "CI", "n"]
    assert [line.split()[0] for line in table[2:5]] == ["Anterior", "Posterior", "mean"]
    assert all(line.split()[-1] == "4" for line in table[2:5])
    assert re.search(rf"{tmp_path / 'run' / 'cache'}: \d+ MB of prepared cases, for later runs", done.err)
    for name in ("cross_validation.csv", "cross_validation.json", "report.html", "splits.json"):
        assert (tmp_path / "run" / name).exists()
    (tmp_path / "run" / "fold_1" / "trained_on.json").unlink()
    call = ("train", recipe(tmp_path), "--data", data, "-o", tmp_path / "run", "--fold", "cv", "--resume")
    before = (tmp_path / "run" / "fold_0" / "last.pt").stat().st_mtime_ns
    assert volseg_(*call).code == 0
    assert (tmp_path / "run" / "fold_0" / "last.pt").stat().st_mtime_ns == before
    assert (tmp_path / "run" / "fold_1" / "trained_on.json").exists()
    done = volseg_("model", "pack", tmp_path / "run", "-o", tmp_path / "one", "--fold", "1")
    assert done.out.startswith(f"{tmp_path / 'one'}: model tiny with fold 1\n")
    done = volseg_("model", "pack", tmp_path / "run", "-o", tmp_path / "mean", "--average")
    assert done.code == 2
    assert "its folds started from random weights" in done.err
    assert not (tmp_path / "mean").exists()


def test_fine_tuning(volseg_: Command, tmp_path: Path, data: Path) -> None:
    model_of(tmp_path / "model", tiny_recipe(window=[8, 8, 8]))
    call = ("train", recipe(tmp_path), "--data", data, "-o", tmp_path / "run", "--steps", 1, "--from")
    done = volseg_(*call, tmp_path / "model", "--freeze", 1)
    assert done.code == 0, done.err
    assert re.search(r"(\d+) of \1 tensors are those of tiny 1\.0, fold all; new: none", done.err)
    assert "the first 1 stages of the encoder stay as they are" in done.err
    done = volseg_(*call, "nowhere")
    assert (done.code, done.out) == (2, "")
    assert "nowhere: neither a model folder nor a bundled model" in done.err


def test_resume(volseg_: Command, tmp_path: Path, data: Path) -> None:
    call = ("train", recipe(tmp_path), "--data", data, "-o", tmp_path / "run", "--steps", 3)
    assert volseg_(*call).code == 0
    done = volseg_(*call)
    assert (done.code, done.out) == (2, "")
    assert "go on with --resume" in done.err
    done = volseg_(*call, "--resume")
    assert done.code == 0
    assert "finished at step 3" in done.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--fold", "2"), "fold 2 isn't one of the recipe's: 0 to 1"),
        (("--fold", "-1"), "--fold -1: give a number from 0 to 1, or cv"),
        (("--fold", "first"), "--fold first: give a number from 0 to 1, or cv"),
        (("--steps", "2", "--minutes", "1"), "give --minutes or --steps, not both"),
        (("--freeze", "1"), "--freeze is for --from"),
        (("--data", "nowhere"), "nowhere: no dataset"),
    ],
)
def test_a_wrong_call(volseg_: Command, tmp_path: Path, data: Path, arguments: tuple[str, ...], problem: str) -> None:
    done = volseg_("train", recipe(tmp_path), "--data", data, "-o", tmp_path / "run", *arguments)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\nwindwo: [8, 8, 8]\n", "windwo: no such key"),
        ("name: [", "not a YAML file"),
        ("- 1\n", "not a recipe"),
    ],
)
def test_a_recipe_that_can_t_be_used(volseg_: Command, tmp_path: Path, data: Path, text: str, problem: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    done = volseg_("train", path, "--data", data, "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"volseg: {path}: ")
    assert problem in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_window_that_doesn_t_fit_names_those_that_do(volseg_: Command, tmp_path: Path, data: Path) -> None:
    done = volseg_("train", recipe(tmp_path, window=[9, 8, 8]), "--data", data, "-o", tmp_path / "run")
    assert done.code == 2
    assert "8 or 10 by 8 by 8" in done.err


def test_a_case_that_can_t_be_used_is_named(volseg_: Command, tmp_path: Path, data: Path) -> None:
    labels = blob_case(0)[1].astype(np.float64)
    labels[0, 0, 0] = 1.1
    path = write_nifti(data / "labelsTr" / "case_2.nii.gz", labels)
    done = volseg_("train", recipe(tmp_path), "--data", data, "-o", tmp_path / "run")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(
        f"volseg: {path}: no label map: 1 voxels aren't whole numbers, the first is 1.1"
    )
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_a_table_of_dicom_series_with_seg_and_rtstruct(volseg_: Command, tmp_path: Path) -> None:
    image, labels = blob_case(0)
    headers = [pydicom.dcmread(path) for path in write_series(tmp_path / "a" / "mr", image.astype(np.int16))]
    write_series(tmp_path / "b", image.astype(np.int16), seed="other")
    seg = segmentation(headers, [labels == 1, labels == 2])
    seg.SegmentSequence[0].SegmentLabel, seg.SegmentSequence[1].SegmentLabel = "anterior hippocampus", "Other"
    save(seg, tmp_path / "a" / "seg" / "mask.dcm")
    x, y, z = (float(value) for value in headers[3].ImagePositionPatient)
    rt = structure_set(headers, [np.array([(x + 1, y + 1, z), (x + 9, y + 1, z), (x + 9, y + 9, z)])])
    rt.StructureSetROISequence[0].ROIName = "POSTERIOR HIPPOCAMPUS"
    save(rt, tmp_path / "rt.dcm")
    (tmp_path / "table.csv").write_text("case,image,label\nfirst,a/mr,a/seg\nsecond,b,rt.dcm\n")
    table, run = tmp_path / "table.csv", tmp_path / "run"
    done = volseg_("train", recipe(tmp_path), "--data", table, "-o", run, "--steps", 1)
    assert done.code == 0, done.err
    assert "first: no segment is called 'Posterior hippocampus': this label is empty" in done.err
    assert "second: no region is called 'Anterior hippocampus': this label is empty" in done.err
