"""What libraries say of values in files reaches nobody, whatever other threads do with Python's warning filters."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pydicom
import pytest

import volseg
from tests.helpers.dicom_files import put, write_series
from volseg.loaders.dicom.quiet import quiet

#: A patient's name that pydicom warns of: more than 64 characters in one component.
NAME = "Musterfrau" * 7


def series(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(folder, edit=put(PatientName=NAME, StudyID="7" * 20))
    return folder


def test_the_name_is_one_that_pydicom_warns_of(tmp_path: Path) -> None:
    file = next(series(tmp_path).iterdir())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ = pydicom.dcmread(file).PatientName
    assert any(NAME[:10] in str(warning.message) or "64" in str(warning.message) for warning in caught)


def test_threads_that_read_at_once_leave_the_filters_as_they_were(tmp_path: Path) -> None:
    folder = series(tmp_path)
    before = [entry for entry in warnings.filters if entry[0] != "ignore"]
    begun, ended = threading.Barrier(2), threading.Event()

    def first() -> None:
        begun.wait()
        volseg.load(folder)
        ended.set()

    def second() -> None:
        begun.wait()
        volseg.load(folder)
        ended.wait()
        volseg.load(folder)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry for entry in warnings.filters if entry[0] != "ignore"] == before
    with pytest.warns(UserWarning, match="of a server"):
        warnings.warn("of a server", stacklevel=1)


def test_a_program_that_put_the_filters_back_is_quiet_again(tmp_path: Path) -> None:
    file = next(series(tmp_path).iterdir())
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        quiet()
        assert pydicom.dcmread(file).PatientName == NAME
        with pytest.raises(UserWarning, match="of ours"):
            warnings.warn("of ours", stacklevel=1)


PROGRAM = """
import logging, sys, threading
logging.basicConfig(level=logging.DEBUG)
import volseg
from volseg.cli.main import app

threads = [threading.Thread(target=volseg.load, args=(sys.argv[1],)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
app(["inspect", sys.argv[1]], standalone_mode=False)
app(["predict", sys.argv[1], "-o", sys.argv[2], "--model", "hippocampus"], standalone_mode=False)
"""


def test_no_name_is_printed_logged_or_written(tmp_path: Path) -> None:
    folder = series(tmp_path / "study")
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM, str(folder), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    # A SEG is the patient's, and says so.
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert written, run.stderr
    said = [run.stdout, run.stderr, *(path.read_bytes().decode("latin-1") for path in written)]
    assert [text for text in said if NAME[:10] in text] == []
    assert "UserWarning" not in run.stderr
