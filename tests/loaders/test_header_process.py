"""A large folder is read by several processes, to the same end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.dicom_files import put, write_series
from volseg.loaders import find, header_process, study
from volseg.loaders.classify import classify
from volseg.loaders.header_process import classify_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        write_series(tmp_path / str(number), seed=f"series {number}")
    write_series(tmp_path / "gap", seed="gap", edit=lambda dataset, index: put(PixelData=b"")(dataset, index))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "junk.dcm").write_bytes(b"junk")
    (tmp_path / "bad.nii.gz").write_bytes(b"junk")
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_same_as_in_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_process, "CHUNK", 5)
    found = [item for some in classify_all(files(folder)) for item in some]
    assert found == [classify(path) for path in files(folder)]
    assert len(found) == 18


def test_find_uses_them_for_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = find(folder)
    monkeypatch.setattr(study, "MANY", 1)
    seen: list[tuple[int, int]] = []
    many = find(folder, progress=lambda done, of: seen.append((done, of)))
    assert [candidate.as_json(folder) for candidate in many.candidates] == [
        candidate.as_json(folder) for candidate in few.candidates
    ]
    assert many.ignored == few.ignored
    assert seen[-1] == (18, 18)


def test_a_process_that_dies_costs_time_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> subprocess.Popen[bytes]:
        process = started()
        process.kill()
        return process

    started = header_process._started
    monkeypatch.setattr(header_process, "_started", dead)
    found = [item for some in classify_all(files(folder)) for item in some]
    assert found == [classify(path) for path in files(folder)]


def test_no_process_is_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def started() -> subprocess.Popen[bytes]:
        processes.append(original())
        return processes[-1]

    original = header_process._started
    monkeypatch.setattr(header_process, "_started", started)
    monkeypatch.setattr(header_process, "CHUNK", 3)
    answers = classify_all(files(folder))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert processes
    assert all(process.returncode is not None for process in processes)
