"""A tilted CT, segmented on request: its mask lies on the original slices, as NIfTI and as SEG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

import volseg.export.preview
from tests.helpers import dicom_files
from tests.helpers.batch import request_for
from tests.helpers.command import Command
from tests.helpers.tiny import Array, model_of, scan, threshold_recipe, threshold_weights, thresholded
from volseg.batch.case import Job
from volseg.batch.runner import mismatch
from volseg.geometry import Geometry
from volseg.inference import Model
from volseg.loaders import find
from volseg.volume import Volume

SHAPE = (11, 14, 9)
PIXEL = (0.8, 1.3)
TILTS = [(5.0, 0), (-5.0, 1), (15.0, 1), (-15.0, 0)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The threshold model for CT of any size."""
    folder = tmp_path_factory.mktemp("models") / "ct"
    recipe = threshold_recipe(window=[16, 16, 16], channels=[{"name": "CT", "modalities": ["CT"]}])
    anything: Any = {"spacing_mm": ((0.1, 20.0),) * 3, "extent_mm": ((1.0, 500.0),) * 3}
    model_of(folder, recipe, {"all": threshold_weights()}, **anything)
    return folder


@pytest.fixture
def volseg_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def leaning(degrees: float, along: int, slices_mm: float) -> Array:
    """LPS affine of slices that lean along the columns' (0) or the rows' (1) index."""
    affine = dicom_files.lps_affine((*PIXEL, slices_mm), directions=dicom_files.rotation(7, -4, 11))
    affine[:3, 2] += np.tan(np.radians(degrees)) * slices_mm * affine[:3, along] / PIXEL[along]
    return affine


def whole_pixels(degrees: float, along: int) -> Array:
    """Slices so far apart that each lies one pixel off the one before: straightening interpolates nothing."""
    return leaning(degrees, along, PIXEL[along] / np.tan(np.radians(abs(degrees))))


def check_files(folder: Path, expected: Array, affine_lps: Array) -> None:
    """Compare both masks with what they should be, voxel by voxel, by nibabel and by the SEG's own frames."""
    mask = nibabel.load(folder / "mask.nii.gz")
    affine_ras = np.diag([-1, -1, 1, 1]) @ affine_lps
    assert mask.shape == SHAPE
    assert np.abs(mask.affine - affine_ras).max() <= 1e-4
    assert np.array_equal(np.asarray(mask.dataobj), expected)

    seg = highdicom.seg.segread(folder / "mask.seg.dcm")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    normal = np.cross(affine_lps[:3, 0], affine_lps[:3, 1]) / np.prod(PIXEL)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(affine_lps[:3, 2] @ normal, abs=1e-6)
    found = np.zeros(SHAPE, dtype=np.uint8)
    for number, item in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        position = np.array(item.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        k = int(np.round(np.linalg.solve(affine_lps[:3, :3], position - affine_lps[:3, 3]))[2])
        assert np.abs(position - (affine_lps @ [0, 0, k, 1])[:3]).max() < 1e-3
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[:, :, k][seg.get_stored_frame(number).T > 0] = segment
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_the_mask_lies_on_the_original_slices(
    volseg_: Command, tmp_path: Path, model: Path, degrees: float, along: int
) -> None:
    affine, array = whole_pixels(degrees, along), scan(SHAPE, seed=4)
    files = dicom_files.write_series(tmp_path / "in", array, affine, modality="CT")
    done = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "out").iterdir()
    check_files(folder, thresholded(array), affine)

    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "done"
    assert result["options"]["resample_tilt"] is True
    assert [flag for flag in result["flags"] if not flag.startswith("touches-border: ")] == [
        f"tilt: {abs(degrees):.1f} degrees, resampled onto straight slices for the network; the mask is on the original"
        " slices"
    ]
    assert result["geometry"]["shape"] == list(SHAPE)
    assert np.allclose(result["geometry"]["affine"], np.diag([-1, -1, 1, 1]) @ affine, atol=1e-6)
    # A voxel of a leaning stack is as large as one of a straight one: pixel area x distance along the normal.
    voxel_ml = np.prod(PIXEL) * PIXEL[along] / np.tan(np.radians(abs(degrees))) / 1000
    for label in result["labels"]:
        assert label["voxels"] == (thresholded(array) == label["value"]).sum()
        assert label["volume_ml"] == pytest.approx(label["voxels"] * voxel_ml, abs=1e-6)

    referred = pydicom.dcmread(folder / "mask.seg.dcm").ReferencedSeriesSequence[0].ReferencedInstanceSequence
    images = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files]
    assert {item.ReferencedSOPInstanceUID for item in referred} == set(images)
    again = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt")
    assert "unchanged since an earlier run" in again.err


@pytest.mark.parametrize(("degrees", "along"), TILTS)
def test_fractions_of_a_pixel(volseg_: Command, tmp_path: Path, model: Path, degrees: float, along: int) -> None:
    """Bands across the lean are not changed by it, whatever is between the pixels."""
    affine = leaning(degrees, along, 2.5)
    shape = [*SHAPE]
    shape[along] = 1
    array = np.ascontiguousarray(np.broadcast_to(scan((shape[0], shape[1], shape[2]), seed=5), SHAPE))
    dicom_files.write_series(tmp_path / "in", array, affine, modality="CT")
    done = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "out").iterdir()
    check_files(folder, thresholded(array), affine)


def test_without_the_option_it_is_refused_and_the_option_named(volseg_: Command, tmp_path: Path, model: Path) -> None:
    dicom_files.write_series(tmp_path / "in", scan(SHAPE), leaning(5, 1, 2.5), modality="CT")
    done = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    assert done.code == 1
    assert "tilted: " in done.err
    assert "--resample-tilt" in done.err
    (folder,) = (tmp_path / "out").iterdir()
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    # The next run, with the option, does it.
    done = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt")
    assert done.code == 0


@pytest.mark.parametrize(("slices_mm", "code"), [(2.5, None), (2.51, "spacing"), (1.0, "field-of-view")])
def test_the_straight_grid_is_what_must_fit_the_model(tmp_path: Path, slices_mm: float, code: str | None) -> None:
    """Trained up to 2 mm and 18 mm, with 1.25 as margin: 2.5 mm along the normal fits, though centres lie further."""
    channels = [{"name": "CT", "modalities": ["CT"]}]
    limits: Any = {
        "spacing_mm": ((0.1, 20.0), (0.1, 20.0), (0.5, 2.0)),
        "extent_mm": ((1.0, 500.0), (1.0, 500.0), (12.0, 18.0)),
    }
    folder = model_of(tmp_path / "m", threshold_recipe(channels=channels), {"all": threshold_weights()}, **limits)
    dicom_files.write_series(tmp_path / "in", scan(SHAPE), leaning(15, 1, slices_mm), modality="CT")
    (candidate,) = find(tmp_path / "in").candidates
    model = Model(folder)
    requests = [request_for(tmp_path / "in", tmp_path, model, resample_tilt=wanted) for wanted in (True, False)]
    jobs = [Job.of(request, model) for request in requests]
    found, unasked = (mismatch(candidate, job, is_file=False) for job in jobs)
    assert (found and found.code) == code
    # Without the option it isn't skipped, so that the reason is told.
    assert unasked is None


def test_a_straight_series_is_not_touched(volseg_: Command, tmp_path: Path, model: Path) -> None:
    affine, array = leaning(0, 1, 2.5), scan(SHAPE)
    dicom_files.write_series(tmp_path / "in", array, affine, modality="CT")
    done = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt")
    assert done.code == 0
    (folder,) = (tmp_path / "out").iterdir()
    check_files(folder, thresholded(array), affine)
    flags = json.loads((folder / "result.json").read_text())["flags"]
    assert [flag for flag in flags if not flag.startswith("touches-border: ")] == []


def test_the_picture_is_drawn_on_straight_slices(
    volseg_: Command, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Geometry, Geometry]] = []

    def record(volume: Any, labels: Any, path: Path) -> None:
        shown.append((volume.geometry, labels.geometry))
        path.write_bytes(b"x")

    monkeypatch.setattr(volseg.export.preview, "write_preview", record)
    dicom_files.write_series(tmp_path / "in", scan(SHAPE), leaning(15, 1, 2.5), modality="CT")
    volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt")
    ((scan_grid, mask_grid),) = shown
    assert not scan_grid.sheared
    assert mask_grid.same_grid(scan_grid)


def test_blank_uids_are_repaired_as_well(volseg_: Command, tmp_path: Path, model: Path) -> None:
    affine, array = whole_pixels(15, 1), scan(SHAPE, seed=4)
    blank = dicom_files.put(StudyInstanceUID="", SeriesInstanceUID="")
    dicom_files.write_series(tmp_path / "in", array, affine, modality="CT", edit=blank)
    call = ("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--resample-tilt", "--repair-uids")
    done = volseg_(*call)
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "out").iterdir()
    check_files(folder, thresholded(array), affine)


def test_in_python(tmp_path: Path, model: Path) -> None:
    affine, array = whole_pixels(-5, 0), scan(SHAPE, seed=4)
    dicom_files.write_series(tmp_path / "in", array, affine, modality="CT")
    scan_volume: Volume = volseg.load(tmp_path / "in", resample_tilt=True)
    labels = volseg.load_model(model).predict(scan_volume)
    assert isinstance(volseg.load_model(model), Model)
    volseg.save(labels, tmp_path / "mask.nii.gz")
    volseg.save(labels, tmp_path / "mask.seg.dcm")
    check_files(tmp_path, thresholded(array), affine)
