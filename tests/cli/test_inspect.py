from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer

from tests.helpers.dicom_files import put, shift_at, voxels, write_series
from volseg.cli.inspect import inspect
from volseg.errors import UsageError


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_series(tmp_path / "one" / "T1", seed="T1")
    write_series(tmp_path / "one" / "gap", seed="gap", edit=shift_at(2, mm=(0, 0, 2.5)))
    nib.save(nib.Nifti1Image(voxels(), np.diag([0.5, 0.5, 2, 1])), tmp_path / "scan.nii.gz")
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


def run(path: Path, *, json: bool = False, tree: bool = False, all_volumes: bool = False) -> int:
    try:
        inspect(path, json=json, tree=tree, all_volumes=all_volumes)
    except typer.Exit as end:
        return end.exit_code
    return 0


def test_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study) == 1
    shown = capsys.readouterr().out
    for text in (
        "MR-3-T1-",
        "5x4x3",
        "0.7x0.9x2.5",
        "LPS",
        "usable",
        "scan",
        "NIfTI",
        "RAS",
        "refused (missing-slice)",
    ):
        assert text in shown
    assert "1 other file ignored" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_nothing_is_lost_at_any_width(
    study: Path, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run(study, tree=True)
    shown = capsys.readouterr().out
    assert "…" not in shown
    words = " ".join(shown.split())
    assert "slices every 2.5 mm with 1 absent: 1 between IM001.dcm and IM002.dcm" in words
    assert max(map(len, shown.splitlines())) <= max(80, int(columns))


def test_tree_shows_where_files_went(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(study, tree=True)
    shown = capsys.readouterr().out
    for text in ("one/", "gap/", "(3 files, missing-slice)", "(1 file, usable)", "notes.txt: ignored, no image"):
        assert text in shown


def test_json_is_one_strict_document(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study, json=True) == 1

    def no_constant(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    document = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert set(document) == {"candidates", "ignored"}
    assert {entry["path"]: entry["code"] for entry in document["candidates"]} == {
        "one/T1": None,
        "one/gap": "missing-slice",
        "scan.nii.gz": None,
    }
    refused = next(entry for entry in document["candidates"] if entry["code"])
    assert refused["shape"] is refused["spacing_mm"] is refused["affine"] is refused["orientation"] is None
    assert refused["files"] == 3
    assert document["ignored"] == [{"path": "notes.txt", "reason": "no image that volseg reads"}]
    keys = "name kind modality description path files series_uid shape spacing_mm affine orientation usable reason"
    assert all(set(entry) == {*keys.split(), "code", "notes"} for entry in document["candidates"])


def test_json_of_a_single_file_names_it(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study / "scan.nii.gz", json=True) == 0
    (entry,) = json.loads(capsys.readouterr().out)["candidates"]
    assert (entry["path"], entry["files"], entry["spacing_mm"]) == ("scan.nii.gz", 1, [0.5, 0.5, 2.0])


@pytest.mark.parametrize("as_json", [True, False])
def test_no_image_is_said_on_stderr(tmp_path: Path, as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert run(tmp_path, json=as_json) == 1
    captured = capsys.readouterr()
    assert str(tmp_path) in captured.err
    assert "no image" in captured.err
    if as_json:
        assert json.loads(captured.out)["candidates"] == []


def test_all_usable_is_0(tmp_path: Path) -> None:
    write_series(tmp_path)
    assert run(tmp_path) == 0


def test_an_absent_path_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        inspect(tmp_path / "absent")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "b\udcffd.dcm"
    bad.write_bytes(b"junk")
    assert run(tmp_path, tree=True) == 1
    assert run(tmp_path, json=True) == 1
    assert "unreadable" in capsys.readouterr().out


def test_markup_in_a_description_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "[bold]x", edit=put(ImagesInAcquisition=9))
    run(tmp_path, tree=True)
    assert "[bold]x/" in capsys.readouterr().out


def time_points(folder: Path, count: int) -> Path:
    for time in range(count):
        edit = put(SeriesInstanceUID="1.2.3", TemporalPositionIdentifier=time + 1)
        write_series(folder, voxels((5, 4, 4)) + 100 * time, seed="fmri", edit=edit, name=f"{time}-{{}}.dcm".format)
    return folder


def test_volumes_of_a_long_series_share_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = time_points(tmp_path, 30)
    assert run(folder) == 0
    shown = capsys.readouterr().out
    assert "and 29 more volumes of its series" in " ".join(shown.split())
    assert "--all" in shown
    assert len(shown.splitlines()) < 20
    assert run(folder, all_volumes=True) == 0
    listed = capsys.readouterr().out
    assert sum("usable" in line for line in listed.splitlines()) == 30
    assert "more volumes" not in listed


def test_a_few_volumes_have_a_line_each_and_so_has_one_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(time_points(tmp_path / "few", 4))
    assert sum("usable" in line for line in capsys.readouterr().out.splitlines()) == 4
    folder = time_points(tmp_path / "long", 12)
    (folder / "7-1.dcm").unlink()
    assert run(folder) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "and 10 more volumes" in shown
    assert "refused (missing-slice)" in shown
