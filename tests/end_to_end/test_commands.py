"""The real commands, as a person runs them: other processes, from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
import yaml

from tests.helpers.tiny import blob_case, scan, threshold_model, tiny_recipe, write_dataset, write_nifti
from volseg.datasets.cases import load_dataset
from volseg.training import loop
from volseg.training.checkpoint import load_checkpoint
from volseg.training.run import Budget, train_fold

pytestmark = pytest.mark.slow

#: Small tensors on several threads spend their time waiting where other processes want the cores too.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def volseg(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=ONE_THREAD, timeout=300)


def test_the_bundled_model_takes_the_series_that_fits(shared_data: Path, tmp_path: Path) -> None:
    """A study of five MR series: the crop is segmented, the whole heads are skipped with their reasons."""
    done = volseg("predict", shared_data / "dicom" / "study1", "-o", "out", "--model", "hippocampus", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # The headers lack elements that a SEG must have, if empty: its flags say so.
    assert done.stdout == "out: 1 done, 4 skipped, 1 with warnings (flags in result.json)\n"
    assert "Traceback" not in done.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")]
    crop = next(result for result in results if result["status"] == "done")
    assert [r["code"] for r in results if r["status"] == "skipped"] == ["spacing"] * 4
    assert crop["case"].startswith("MR-x-HippoCrop-")
    folder = tmp_path / "out" / crop["case"]
    assert sorted(crop["files"]) == ["mask.nii.gz", "mask.seg.dcm", "preview.png"]
    # The grid, from the headers of the slices.
    slices = [pydicom.dcmread(p) for p in (shared_data / "dicom" / "study1" / crop["source"]["path"]).iterdir()]
    first = min(slices, key=lambda header: float(header.ImagePositionPatient[2]))
    mask = nibabel.load(folder / "mask.nii.gz")
    assert mask.shape == (first.Columns, first.Rows, len(slices)) == (35, 51, 32)
    x, y, z = (float(value) for value in first.ImagePositionPatient)
    assert np.abs(mask.affine - [[-1, 0, 0, -x], [0, -1, 0, -y], [0, 0, 1, z], [0, 0, 0, 1]]).max() <= 1e-4
    # A hippocampus has some ml, and both halves of it are there.
    assert all(0.3 < label["volume_ml"] < 6 for label in crop["labels"])
    patient = str(first.PatientName)
    assert patient
    assert patient not in done.stdout + done.stderr + json.dumps(results)


def test_streams_and_exit_codes(tmp_path: Path) -> None:
    threshold_model(tmp_path / "model", window=[32, 32, 32])
    write_nifti(tmp_path / "in" / "good.nii.gz", scan((35, 44, 33)))
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"\x1f\x8b\x08 not gzip")
    done = volseg("predict", "in", "-o", "out", "--model", "model", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "out: 1 done, 1 refused or failed\n")
    told = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert [line.split()[:2] for line in told] == [["refused", "bad"], ["done", "good"], ["engine", "openvino"]]
    assert "in/bad.nii.gz: " in told[0]
    assert "\033" not in done.stderr


def test_a_training_that_is_killed_goes_on_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed without warning, resumed in this one: the weights are those of a run that nobody killed."""
    write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(2)})
    recipe = tiny_recipe(training={"batch_size": 1, "validations": 5, "folds": 2})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))

    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    call = ["train", "recipe.yaml", "--data", "data", "--steps", "5", "--fold", "0", "-o"]
    checkpoint = tmp_path / "killed" / "fold_0" / "last.pt"
    command = [sys.executable, "-m", "volseg", *call, "killed"]
    killed = subprocess.Popen(command, cwd=tmp_path, env=ONE_THREAD, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        killed.kill()
        killed.wait()
    assert load_checkpoint(checkpoint)["progress"]["step"] < 5
    cases = load_dataset(tmp_path / "data")
    for run, resume in (("killed", True), ("whole", False)):
        train_fold(recipe, cases, tmp_path / run, 0, Budget(steps=5), resume=resume, report=lambda *_: None)
    first, second = (load_checkpoint(tmp_path / run / "fold_0" / "last.pt") for run in ("killed", "whole"))
    assert first["progress"]["step"] == 5
    assert all(torch.equal(value, second["network"][name]) for name, value in first["network"].items())
    assert [row["loss"] for row in first["progress"]["history"]] == [
        row["loss"] for row in second["progress"]["history"]
    ]
