"""What an earlier run left of a case: believed only while everything it says still holds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from volseg.batch.ledger import discard, file_hashes, reusable
from volseg.results.case import CaseResult, ModelIdentity, SourceResult, Status, read, write
from volseg.results.settings import Settings

MODEL = ModelIdentity(name="m", version="1.0", sha256="ab")
WANTED = CaseResult(
    case="a",
    status="done",
    source=SourceResult(kind="nifti", sha256="cd"),
    volseg="0.1.0",
    model=MODEL,
    options=Settings(tta=False, folds=("all",)),
)

NULLS = '{"case": "a", "status": "done", "source": null, "files": null}'
ODD_FILE = '{"case": "a", "status": "done", "source": {}, "files": {".": "ab"}}'


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A finished case of two files."""
    (tmp_path / "series").mkdir()
    (tmp_path / "mask.nii.gz").write_bytes(b"mask")
    (tmp_path / "series" / "a.dcm").write_bytes(b"slice")
    files = file_hashes(tmp_path, ["series/a.dcm", "mask.nii.gz"])
    write(tmp_path, WANTED.model_copy(update={"files": files}))
    return tmp_path


def test_hashes_are_those_of_the_content(case: Path) -> None:
    assert read(case).files == {
        "mask.nii.gz": hashlib.sha256(b"mask").hexdigest(),
        "series/a.dcm": hashlib.sha256(b"slice").hexdigest(),
    }


def test_an_unchanged_case_is_reused(case: Path) -> None:
    assert reusable(case, WANTED) == read(case)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": SourceResult(kind="nifti", sha256="ce")},
        {"volseg": "0.2.0"},
        {"model": MODEL.model_copy(update={"sha256": "ac"})},
        {"options": Settings(tta=False, folds=("all",), formats=("nifti",))},
    ],
    ids=lambda changes: "".join(changes),
)
def test_another_input_or_wish_is_not(case: Path, changes: dict[str, Any]) -> None:
    assert reusable(case, WANTED.model_copy(update=changes)) is None


def test_an_option_that_changes_nothing_does_not_matter(case: Path) -> None:
    more = Settings(tta=False, folds=("all",), memory=8_000_000_000)
    assert reusable(case, WANTED.model_copy(update={"options": more})) is not None


@pytest.mark.parametrize("name", ["mask.nii.gz", "series/a.dcm"])
def test_a_file_that_was_changed_or_is_gone_ends_it(case: Path, name: str) -> None:
    (case / name).write_bytes(b"other")
    assert reusable(case, WANTED) is None
    (case / name).unlink()
    assert reusable(case, WANTED) is None


@pytest.mark.parametrize(("status", "kept"), [("done", True), ("empty", True), ("failed", False), ("refused", False)])
def test_only_what_succeeded_is_reused(case: Path, status: Status, kept: bool) -> None:
    write(case, read(case).model_copy(update={"status": status}))
    assert (reusable(case, WANTED) is not None) == kept


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"status": "done"}', "\x00", NULLS, ODD_FILE])
def test_an_odd_result_counts_as_none(case: Path, content: str) -> None:
    (case / "result.json").write_text(content)
    assert reusable(case, WANTED) is None
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
    write(case, WANTED.model_copy(update={"files": {"../outside.txt": "", str(outside): ""}}))
    discard(case)
    assert outside.read_text() == "mine"


def test_discarding_nothing(tmp_path: Path) -> None:
    discard(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
