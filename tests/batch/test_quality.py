"""Maps and numbers on quality as a batch writes them: accounted for, reused, redone and removed like every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.helpers import dicom_files
from tests.helpers.batch import segment
from tests.helpers.tiny import model_of, scan, threshold_recipe, threshold_weights, write_nifti
from volseg.batch.ledger import discard
from volseg.errors import ExportError
from volseg.inference import Model, Options, load_model
from volseg.models.folder import TrainedOn

SHAPE = (9, 12, 14)
MAPS = [
    f"probabilities/{name}.nii.gz" for name in ("0-background", "1-Anterior_hippocampus", "2-Posterior_hippocampus")
]
ENTROPY = "probabilities/entropy.nii.gz"
BOTH = Options(probabilities=True, entropy=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_model(tmp_path_factory.mktemp("models") / "threshold", ("0", "1"))


def small_model(folder: Path, folds: tuple[str, ...] = ("all",), **trained_on: Any) -> Model:
    """One that takes scans of any size."""
    states = {fold: threshold_weights() for fold in folds}
    model_of(folder, threshold_recipe(), states, spacing_mm=None, extent_mm=None, **trained_on)
    return load_model(folder)


def run(path: Path, model: Model, options: Options, **more: Any) -> dict[str, Any]:
    (result,) = segment(path, path.parent / "out", model, options=options, **more)
    return result


def maps_in(result: dict[str, Any]) -> list[str]:
    return sorted(name for name in result["files"] if name.startswith("probabilities/"))


def test_maps_are_accounted_for_reused_and_redone(tmp_path: Path, model: Model) -> None:
    write_nifti(tmp_path / "in" / "x.nii.gz", scan(SHAPE))
    folder = tmp_path / "out" / "x"
    result = run(tmp_path / "in", model, BOTH)
    assert result["status"] == "done"
    assert maps_in(result) == [*MAPS, ENTROPY]
    for name in [*MAPS, ENTROPY]:
        assert result["files"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (result["options"]["probabilities"], result["options"]["entropy"]) == (True, True)
    assert run(tmp_path / "in", model, BOTH)["reused"]
    (folder / MAPS[1]).write_bytes(b"other")
    assert "reused" not in run(tmp_path / "in", model, BOTH)
    # Without maps it is another result, and those of before are gone.
    plain = run(tmp_path / "in", model, Options())
    assert "reused" not in plain
    assert maps_in(plain) == []
    assert not (folder / "probabilities").exists()
    assert {label["name"]: label["confidence"] for label in plain["labels"]} == {
        label["name"]: label["confidence"] for label in result["labels"]
    }
    assert maps_in(run(tmp_path / "in", model, Options(entropy=True))) == [ENTROPY]
    assert maps_in(run(tmp_path / "in", model, Options(probabilities=True, labels=("2",)))) == [MAPS[0], MAPS[2]]


def test_probabilities_worked_by_hand(tmp_path: Path, model: Model) -> None:
    """Logits are 0, x - 100.5 and 2 x - 301: at 101 the odds are 1 : e^0.5 : e^-99, at 200 e^99.5 / e^99."""
    array = np.full(SHAPE, 101, np.int16)
    array[4:] = 200
    write_nifti(tmp_path / "in" / "x.nii.gz", array)
    run(tmp_path / "in", model, BOTH)
    background, first, second = (nibabel.load(tmp_path / "out" / "x" / name).get_fdata() for name in MAPS)
    share = np.exp(0.5) / (1 + np.exp(0.5))
    assert np.abs(first - share).max() < 0.51 / 255
    assert np.abs(background[:4] - (1 - share)).max() < 0.51 / 255
    assert np.abs(second[4:] - (1 - share)).max() < 0.51 / 255
    assert (background[4:].max(), second[:4].max()) == (0, 0)
    bits = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert np.abs(nibabel.load(tmp_path / "out" / "x" / ENTROPY).get_fdata() - bits).max() < 0.51 * np.log2(3) / 255
    result = json.loads((tmp_path / "out" / "x" / "result.json").read_text())
    anterior, posterior = result["labels"]
    assert anterior["confidence"] == pytest.approx(share, abs=1e-4)
    assert (anterior["agreement"], posterior["agreement"]) == (1.0, None)
    assert anterior["touches_border"] == list("LRPAIS")
    assert posterior["touches_border"] == []
    assert result["flags"] == [
        "looks-like-a-mask: the scan holds 2 different values alone, 101, 200",
        "low-confidence: Anterior hippocampus (0.62); mean probability of the label below 0.8",
        "touches-border: Anterior hippocampus (LRPAIS); may be cut off there",
    ]


def test_a_label_inside_the_scan_and_in_the_range_of_training_raises_no_flag(tmp_path: Path) -> None:
    volumes = {"Anterior hippocampus": (0.2, 0.4), "Posterior hippocampus": (0.0, 0.1)}
    model = small_model(tmp_path / "m", volumes_ml=volumes)
    array = np.zeros((20, 20, 20), np.int16)
    array[5:11, 5:11, 5:13] = 150  # 288 voxels of 1 mm: 0.288 ml
    # A scan has many values; these are all on one side of the model's thresholds.
    shade = np.arange(20, dtype=np.int16)[:, None, None]
    write_nifti(tmp_path / "in" / "x.nii.gz", array + shade)
    assert run(tmp_path / "in", model, Options())["flags"] == []
    array[5:15, 5:15, 5:15] = 150  # 1 ml
    write_nifti(tmp_path / "in" / "x.nii.gz", array + shade)
    assert run(tmp_path / "in", model, Options())["flags"] == [
        "unusual-volume: Anterior hippocampus (1 ml, in training 0.2 to 0.4 ml); beyond what the training cases hold"
    ]


def test_a_model_without_volumes_is_read(model: Model) -> None:
    assert model.trained_on.volumes_ml is None
    content = model.trained_on.model_dump(mode="json")
    del content["volumes_ml"]
    assert TrainedOn.model_validate(content) == model.trained_on


def test_maps_of_a_tilted_series_lie_on_its_own_slices(tmp_path: Path, model: Model) -> None:
    affine = dicom_files.lps_affine((1, 1, 1))
    affine[1, 2] = 0.4
    array = np.zeros((20, 24, 12), np.int16)
    array[6:12, 6:14, 3:8] = 150
    dicom_files.write_series(tmp_path / "in", array, affine)
    result = run(tmp_path / "in", model, BOTH, formats=("nifti",), resample_tilt=True)
    assert result["status"] == "done", result["reason"]
    folder = tmp_path / "out" / result["case"]
    mask = nibabel.load(folder / "mask.nii.gz")
    shown = [nibabel.load(folder / name) for name in MAPS]
    for image in shown:
        assert image.shape == mask.shape
        assert np.allclose(image.affine, mask.affine)
    likeliest = np.argmax([image.get_fdata() for image in shown], 0)
    assert (likeliest == np.asarray(mask.dataobj)).mean() > 0.999
    assert likeliest.any()


def test_a_map_that_can_t_be_written_fails_the_case(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Iterator[str]:
        raise ExportError("the file can't be written: No space left on device", code="no-room", path=Path("x"))
        yield ""

    write_nifti(tmp_path / "in" / "x.nii.gz", scan(SHAPE))
    monkeypatch.setattr("volseg.export.maps.write_maps", fails)
    result = run(tmp_path / "in", model, BOTH)
    assert (result["status"], result["code"]) == ("failed", "no-room")
    assert "probabilities: no-room: the file can't be written: No space left on device" in result["flags"]
    assert sorted(result["files"]) == ["mask.nii.gz"]


def test_what_an_interrupted_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "probabilities").mkdir()
    (tmp_path / "probabilities" / "1-liver.nii.gz").write_bytes(b"half")
    discard(tmp_path)
    assert not (tmp_path / "probabilities").exists()
