"""Models of several channels: which series of a study become a case, and how ``--series`` says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch

from tests.helpers import dicom_files
from tests.helpers.batch import segment
from tests.helpers.tiny import Array, model_of, scan, threshold_recipe, threshold_weights, thresholded, write_nifti
from volseg.errors import UsageError
from volseg.inference import Model, load_model

SHAPE = (12, 10, 9)
AFFINE = dicom_files.lps_affine((1, 1, 1), directions=dicom_files.rotation(5, -8, 12))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its mask is the threshold of the first channel plus twice the second: the order matters."""
    folder = tmp_path_factory.mktemp("models") / "two"
    channels = [
        {"name": "T1", "modalities": ["MR"], "description": "t1"},
        {"name": "FLAIR", "modalities": ["MR"], "description": "flair"},
    ]
    weights = threshold_weights()
    weights["encoder.0.blocks.0.0.weight"] = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1, 1)
    anything: Any = {"spacing_mm": ((0.1, 20.0),) * 3, "extent_mm": ((1.0, 500.0),) * 3}
    recipe = threshold_recipe(window=[16, 16, 16], channels=channels)
    model_of(folder, recipe, {"all": weights}, **anything, intensity=((0.0, 400.0),) * 2)
    return load_model(folder)


def write(folder: Path, seed: str, affine: Array = AFFINE, **tags: Any) -> Array:
    array = scan(SHAPE, seed=sum(map(ord, seed))) // 3
    tags = {"SeriesNumber": len(list(folder.parent.rglob("IM000.dcm"))) + 1, **tags}
    dicom_files.write_series(folder / seed, array, affine, seed=seed, edit=dicom_files.put(**tags))
    return array


def run(path: Path, model: Model, *series: str, **job: Any) -> list[dict[str, Any]]:
    return segment(path, path.parent / "out", model, series, **{"formats": ("nifti",), **job})


def mask(path: Path, result: dict[str, Any]) -> Array:
    return np.asarray(nibabel.load(path.parent / "out" / result["case"] / "mask.nii.gz").dataobj)


def test_a_study_is_one_case_on_the_first_channels_slices(tmp_path: Path, model: Model) -> None:
    study = tmp_path / "in"
    flair, t1 = write(study, "FLAIR"), write(study, "T1 post")
    write(study, "T2")
    skipped, done = sorted(run(study, model, formats=None), key=lambda result: result["status"], reverse=True)
    assert (skipped["status"], skipped["code"]) == ("skipped", "channels")
    assert skipped["case"].startswith("MR-3-T2-")
    assert done["status"] == "done"
    assert done["case"].startswith("MR-2-T1_post-")
    assert np.array_equal(mask(study, done), thresholded(t1 + 2 * flair))
    assert done["source"]["path"] == "T1 post"
    flag, border = done["flags"]
    assert border.startswith("touches-border: ")
    assert flag.startswith("note: channels: MR-2-T1_post-")
    assert "MR-1-FLAIR-" in flag
    seg = pydicom.dcmread(study.parent / "out" / done["case"] / "mask.seg.dcm")
    referred = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    assert referred == done["source"]["series_uid"]
    assert referred == pydicom.dcmread(study / "T1 post" / "IM000.dcm").SeriesInstanceUID
    again = [result for result in run(study, model, formats=None) if result["status"] == "done"]
    assert again[0]["reused"]


def test_a_change_of_any_channel_does_the_case_again(tmp_path: Path, model: Model) -> None:
    study = tmp_path / "in"
    t1, flair = write(study, "T1"), write(study, "FLAIR")
    run(study, model)
    changed = flair.copy()
    changed[0, 0, 0] = 250
    dicom_files.write_series(study / "FLAIR", changed, AFFINE, seed="FLAIR")
    (result,) = run(study, model)
    assert "reused" not in result
    assert np.array_equal(mask(study, result), thresholded(t1 + 2 * changed))


def test_several_series_that_fit_are_refused_and_series_picks(tmp_path: Path, model: Model) -> None:
    study = tmp_path / "in"
    arrays = {seed: write(study, seed) for seed in ("T1 pre", "T1 post", "FLAIR")}
    (refused,) = run(study, model)
    assert (refused["status"], refused["code"]) == ("refused", "channels")
    assert "several series fit channel T1" in refused["reason"]
    assert "--series" in refused["reason"]
    assert json.loads((tmp_path / "out" / refused["case"] / "result.json").read_text()) == refused

    (done,) = run(study, model, "2", "3")
    assert done["case"].startswith("MR-2-T1_post-")
    assert np.array_equal(mask(study, done), thresholded(arrays["T1 post"] + 2 * arrays["FLAIR"]))
    # In the order given, whatever the rules say; by name, number or UID.
    uid = pydicom.dcmread(study / "FLAIR" / "IM000.dcm").SeriesInstanceUID
    (done,) = run(study, model, uid, done["case"])
    assert np.array_equal(mask(study, done), thresholded(arrays["FLAIR"] + 2 * arrays["T1 post"]))


def test_series_that_were_put_together_can_be_named_too(tmp_path: Path, model: Model) -> None:
    study = tmp_path / "in"
    t1, flair, other = write(study, "T1"), write(study, "FLAIR"), write(study, "other")
    (done,) = run(study, model, "1", "3")
    assert np.array_equal(mask(study, done), thresholded(t1 + 2 * other))
    (case,) = run(study, model, "1")
    assert np.array_equal(mask(study, case), thresholded(t1 + 2 * flair))


def test_names_that_make_no_case(tmp_path: Path, model: Model) -> None:
    study = tmp_path / "in"
    write(study, "T1")
    write(study, "FLAIR")
    for series in (["2"], ["1", "9"], ["2", "2"]):
        with pytest.raises(UsageError, match=r"--series [29]: names no series of the input: MR-1-T1-\w+; or name 2"):
            run(study, model, *series)


def test_one_case_of_each_study_is_not_a_case_of_both(tmp_path: Path, model: Model) -> None:
    folder = tmp_path / "in"
    sums = []
    for study in ("1.2.3", "1.2.4"):
        uids = {seed: f"{study}.{number}" for number, seed in enumerate(("T1", "FLAIR"))}
        arrays = [write(folder / study, s, StudyInstanceUID=study, SeriesInstanceUID=uids[s]) for s in uids]
        sums.append(arrays[0] + 2 * arrays[1])
    results = run(folder, model, "1.2.3.0", "1.2.4.0")
    assert [result["source"]["series_uid"] for result in results] == ["1.2.3.0", "1.2.4.0"]
    for result, total in zip(results, sums, strict=True):
        assert np.array_equal(mask(folder, result), thresholded(total))


def test_a_study_without_a_channel_is_skipped(tmp_path: Path, model: Model) -> None:
    write(tmp_path / "in", "T1")
    write(tmp_path / "in", "T2")
    assert [(result["status"], result["code"]) for result in run(tmp_path / "in", model)] == [
        ("skipped", "channels"),
        ("skipped", "channels"),
    ]


def test_files_are_channels_too(tmp_path: Path, model: Model) -> None:
    one, two = scan(SHAPE, seed=1) // 3, scan(SHAPE, seed=2) // 3
    write_nifti(tmp_path / "in" / "x_0000.nii.gz", one)
    write_nifti(tmp_path / "in" / "x_0001.nii.gz", two)
    write_nifti(tmp_path / "in" / "y_0000.nii.gz", two)
    x, y = run(tmp_path / "in", model)
    assert (x["case"], x["status"]) == ("x", "done")
    assert np.array_equal(mask(tmp_path / "in", x), thresholded(one + 2 * two))
    assert (y["case"], y["status"], y["code"]) == ("y", "refused", "channels")


def test_tilted_channels_come_back_on_the_first_ones_slices(tmp_path: Path, model: Model) -> None:
    """A pixel's lean from slice to slice: straightening interpolates nothing."""
    leaning = AFFINE.copy()
    leaning[:3, 2] += AFFINE[:3, 1]
    t1, flair = write(tmp_path / "in", "T1", leaning), write(tmp_path / "in", "FLAIR", leaning)
    (refused,) = run(tmp_path / "in", model)
    assert (refused["status"], refused["code"]) == ("refused", "tilted")
    assert "--resample-tilt" in refused["reason"]
    (done,) = run(tmp_path / "in", model, resample_tilt=True, formats=None)
    assert done["status"] == "done"
    assert np.array_equal(mask(tmp_path / "in", done), thresholded(t1 + 2 * flair))
    assert any(flag.startswith("tilt: 45.0 degrees") for flag in done["flags"])
    assert (tmp_path / "out" / done["case"] / "mask.seg.dcm").is_file()


def test_blank_uids_of_the_first_channel_are_filled_in(tmp_path: Path, model: Model) -> None:
    t1 = write(tmp_path / "in", "T1", SeriesInstanceUID="")
    flair = write(tmp_path / "in", "FLAIR", SeriesInstanceUID="")
    (done,) = run(tmp_path / "in", model, repair_uids=True, formats=None)
    folder = tmp_path / "out" / done["case"]
    assert np.array_equal(mask(tmp_path / "in", done), thresholded(t1 + 2 * flair))
    assert len(list((folder / "series").iterdir())) == SHAPE[2]
    copy = pydicom.dcmread(folder / "series" / "slice_0001.dcm")
    assert copy.SeriesDescription == "T1"
    seg = pydicom.dcmread(folder / "mask.seg.dcm")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == copy.SeriesInstanceUID
