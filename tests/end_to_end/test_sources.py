"""What comes out keeps up with what goes in: a study in an archive, volumes of a multi-frame file, blank UIDs in it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from tests.helpers import dicom_files
from tests.helpers.command import Command
from tests.helpers.dicom_objects import save, with_echoes
from tests.helpers.tiny import Array, model_of, scan, threshold_recipe, threshold_weights, thresholded

SHAPE = (9, 14, 5)
ECHOES = (4.6, 92.0)
AFFINE = dicom_files.lps_affine(directions=dicom_files.rotation(12, -17, 9))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The threshold model for MR of any size."""
    folder = tmp_path_factory.mktemp("models") / "mr"
    anything: Any = {"spacing_mm": ((0.1, 20.0),) * 3, "extent_mm": ((1.0, 500.0),) * 3}
    model_of(folder, threshold_recipe(), {"all": threshold_weights()}, **anything)
    return folder


@pytest.fixture
def volseg_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def check_nifti(path: Path, expected: Array) -> None:
    mask = nibabel.load(path)
    assert np.abs(mask.affine - np.diag([-1, -1, 1, 1]) @ AFFINE).max() <= 1e-4
    assert np.array_equal(np.asarray(mask.dataobj), expected)


def echoes_of(path: Path, enhanced: str) -> tuple[list[int], Array]:
    """Frame numbers that a SEG refers to, and its pixels on them [column, row, slice], by highdicom."""
    seg = highdicom.seg.segread(path)
    items = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in seg.PerFrameFunctionalGroupsSequence]
    assert {item.ReferencedSOPInstanceUID for item in items} == {enhanced}
    numbers = sorted({int(item.ReferencedFrameNumber) for item in items})
    return numbers, seg.get_pixels_by_source_frame(enhanced, numbers, combine_segments=True).transpose(2, 1, 0)


@pytest.mark.parametrize("archived", [False, True])
def test_a_study_of_a_series_and_a_multi_frame_file_of_two_echoes(
    volseg_: Command, tmp_path: Path, model: Path, archived: bool
) -> None:
    classic, array = scan(SHAPE, seed=1), scan(SHAPE, seed=2)
    files = dicom_files.write_series(tmp_path / "study" / "a", classic, AFFINE, seed="classic")
    enhanced = with_echoes(array, AFFINE, ECHOES)
    save(enhanced, tmp_path / "study" / "b" / "IM1")
    given = zipped(tmp_path / "study") if archived else tmp_path / "study"
    done = volseg_("predict", given, "-o", tmp_path / "out", "--model", model)
    assert done.code == 0, done.err
    folders = sorted((tmp_path / "out").glob("MR-*"))
    assert [folder.name.split("-")[2] for folder in folders] == ["classic", "echoes", "echoes"]
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        assert result["status"] == "done"
        assert {"mask.nii.gz", "mask.seg.dcm"} < set(result["files"])

    check_nifti(folders[0] / "mask.nii.gz", thresholded(classic))
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in files]
    pixels = highdicom.seg.segread(folders[0] / "mask.seg.dcm").get_pixels_by_source_instance(
        uids, combine_segments=True
    )
    assert np.array_equal(pixels.transpose(2, 1, 0), thresholded(classic))

    for folder in folders[1:]:
        echo = [f"te{time:g}" for time in ECHOES].index(folder.name.split("-")[-1])
        expected = thresholded(array + 10 * echo)
        check_nifti(folder / "mask.nii.gz", expected)
        numbers, found = echoes_of(folder / "mask.seg.dcm", enhanced.SOPInstanceUID)
        assert numbers == [2 * k + echo + 1 for k in range(SHAPE[2])]
        assert np.array_equal(found, expected)


def test_blank_uids_of_a_multi_frame_file_in_an_archive(volseg_: Command, tmp_path: Path, model: Path) -> None:
    array = scan(SHAPE, seed=3)
    enhanced = with_echoes(array, AFFINE, ECHOES)
    enhanced.StudyInstanceUID = enhanced.SeriesInstanceUID = ""
    save(enhanced, tmp_path / "study" / "IM1")
    given = zipped(tmp_path / "study")
    done = volseg_("predict", given, "-o", tmp_path / "out", "--model", model, "--repair-uids")
    assert done.code == 0, done.err
    folders = sorted((tmp_path / "out").glob("MR-*"))
    assert len(folders) == 2
    for folder in folders:
        copy = pydicom.dcmread(folder / "series" / "slice_0001.dcm", stop_before_pixels=True)
        seg = pydicom.dcmread(folder / "mask.seg.dcm", stop_before_pixels=True)
        assert seg.StudyInstanceUID == copy.StudyInstanceUID != ""
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == copy.SeriesInstanceUID != ""
        echo = [f"te{time:g}" for time in ECHOES].index(folder.name.split("-")[-1])
        numbers, found = echoes_of(folder / "mask.seg.dcm", enhanced.SOPInstanceUID)
        assert numbers == [2 * k + echo + 1 for k in range(SHAPE[2])]
        assert np.array_equal(found, thresholded(array + 10 * echo))
        check_nifti(folder / "mask.nii.gz", found)
