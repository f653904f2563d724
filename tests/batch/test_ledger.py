"""``result.json``: written whole, and believed only while everything it says still holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from volseg.batch.ledger import discard, file_hashes, read_result, reusable, write_result

WANTED: dict[str, Any] = {
    "volseg": "0.1.0",
    "model": {"name": "m", "version": "1.0", "sha256": "ab"},
    "options": {"formats": None, "tta": False, "folds": ["all"]},
}


NULLS = '{"status": "done", "source": null, "files": null}'
ODD_FILE = '{"status": "done", "source": {}, "files": {".": "ab"}}'


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A finished case of two files."""
    (tmp_path / "series").mkdir()
    (tmp_path / "mask.nii.gz").write_bytes(b"mask")
    (tmp_path / "series" / "a.dcm").write_bytes(b"slice")
    files = file_hashes(tmp_path, ["series/a.dcm", "mask.nii.gz"])
    write_result(tmp_path, {**WANTED, "status": "done", "source": {"sha256": "cd"}, "files": files})
    return tmp_path


def test_hashes_are_those_of_the_content(case: Path) -> None:
    result = read_result(case)
    assert result is not None
    assert result["files"] == {
        "mask.nii.gz": hashlib.sha256(b"mask").hexdigest(),
        "series/a.dcm": hashlib.sha256(b"slice").hexdigest(),
    }


def test_an_unchanged_case_is_reused(case: Path) -> None:
    assert reusable(case, WANTED, "cd") == read_result(case)


def test_another_input_or_wish_is_not(case: Path) -> None:
    assert reusable(case, WANTED, "ce") is None
    for key, value in {
        "volseg": "0.2.0",
        "model": {**WANTED["model"], "sha256": "ac"},
        "options": {**WANTED["options"], "formats": ["nifti"]},
    }.items():
        assert reusable(case, {**WANTED, key: value}, "cd") is None


@pytest.mark.parametrize("name", ["mask.nii.gz", "series/a.dcm"])
def test_a_file_that_was_changed_or_is_gone_ends_it(case: Path, name: str) -> None:
    (case / name).write_bytes(b"other")
    assert reusable(case, WANTED, "cd") is None
    (case / name).unlink()
    assert reusable(case, WANTED, "cd") is None


@pytest.mark.parametrize(("status", "kept"), [("done", True), ("empty", True), ("failed", False), ("refused", False)])
def test_only_what_succeeded_is_reused(case: Path, status: str, kept: bool) -> None:
    result = read_result(case)
    write_result(case, {**(result or {}), "status": status})
    assert (reusable(case, WANTED, "cd") is not None) == kept


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"status": "done"}', "\x00", NULLS, ODD_FILE])
def test_an_odd_result_counts_as_none(case: Path, content: str) -> None:
    (case / "result.json").write_text(content)
    assert reusable(case, WANTED, "cd") is None
    discard(case)
    assert not (case / "result.json").exists()


def test_discarding_removes_what_a_run_wrote_and_nothing_else(case: Path) -> None:
    (case / "notes.txt").write_text("mine")
    discard(case)
    assert [path.name for path in case.iterdir()] == ["notes.txt"]


def test_discarding_removes_masks_that_an_interrupted_run_left(case: Path) -> None:
    (case / "result.json").unlink()
    (case / "mask.seg.dcm").write_bytes(b"seg")
    discard(case)
    assert not list(case.glob("mask*"))


def test_discarding_never_leaves_the_folder(case: Path) -> None:
    outside = case.parent / "outside.txt"
    outside.write_text("mine")
    write_result(case, {"files": {"../outside.txt": "", str(outside): ""}})
    discard(case)
    assert outside.read_text() == "mine"


def test_discarding_nothing(tmp_path: Path) -> None:
    discard(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_the_result_is_written_whole_or_not_at_all(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (case / "result.json").read_bytes()
    with pytest.raises(ValueError, match="nan"):
        write_result(case, {"seconds": float("nan")})

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_result(case, {"status": "done"})
    assert (case / "result.json").read_bytes() == before
    assert sorted(path.name for path in case.iterdir()) == ["mask.nii.gz", "result.json", "series"]
    assert json.loads(before)["status"] == "done"
