"""Orthanc (Debian), started here on this machine alone: what is sent arrives once, whole, and can be found again."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.helpers.scans import blobs, scan_from, write_series
from volseg.export import dicom_rtstruct, dicom_seg
from volseg.send.destination import Destination, Dimse, Web
from volseg.send.run import send

#: pynetdicom forgets to close the socket of a connection that is refused.
pytestmark = [
    pytest.mark.readers,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Orthanc:
    """A server and what it keeps, which outlives a stop."""

    folder: Path
    dicom: int
    web: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("Orthanc")
        assert program is not None, "Orthanc is absent; it is in Debian's package orthanc (make test-readers)"
        settings = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomPort": self.dicom,
            "HttpPort": self.web,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen([program, self.folder / "orthanc.json"], stdout=log, stderr=log)
        for _ in range(100):
            try:
                self.get("/system")
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "orthanc.log").read_text()
                time.sleep(0.1)
        raise AssertionError("Orthanc doesn't answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=10) as answer:
            return json.loads(answer.read())

    def file(self, name: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/instances/{name}/file", timeout=10) as answer:
            return bytes(answer.read())

    def uids(self) -> set[str]:
        found = self.get("/instances?expand")
        return {instance["MainDicomTags"]["SOPInstanceUID"] for instance in found}


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    (tmp_path / "orthanc").mkdir()
    server = Orthanc(tmp_path / "orthanc", free_port(), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "series").mkdir()
    (tmp_path / "out").mkdir()
    mask = blobs(*scan_from(write_series(tmp_path / "series")))
    dicom_seg.write(mask, tmp_path / "out" / "mask.seg.dcm")
    dicom_rtstruct.write(mask, tmp_path / "out" / "mask.rtstruct.dcm")
    return tmp_path / "out"


@pytest.mark.parametrize("spoken", ["C-STORE", "STOW-RS"])
def test_what_is_sent_arrives_once_and_whole(orthanc: Orthanc, out: Path, spoken: str) -> None:
    to: Destination = (
        Dimse(aet="ORTHANC", host="127.0.0.1", port=orthanc.dicom)
        if spoken == "C-STORE"
        else Web(url=f"http://127.0.0.1:{orthanc.web}/dicom-web")
    )
    assert [outcome.said for outcome in send(out, to, pauses_s=())] == ["", ""]
    ours = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in out.glob("*.dcm")}
    assert orthanc.uids() == set(ours)
    for name in orthanc.get("/instances"):
        (out.parent / "back.dcm").write_bytes(orthanc.file(name))
        back = pydicom.dcmread(out.parent / "back.dcm")
        assert back == pydicom.dcmread(ours[back.SOPInstanceUID])
    # QIDO: a search by series finds the SEG under its study.
    found = orthanc.get("/dicom-web/series?Modality=SEG&includefield=SeriesDescription")
    assert [series["0008103E"]["Value"] for series in found] == [["volseg: segmentation"]]
    # The same mask, written anew and sent anew, is the same instance.
    (out / "sent.jsonl").unlink()
    assert all(outcome.accepted for outcome in send(out, to, pauses_s=()))
    assert len(orthanc.get("/instances")) == 2


def test_killed_halfway_and_resumed(orthanc: Orthanc, out: Path) -> None:
    to = Dimse(aet="ORTHANC", host="127.0.0.1", port=orthanc.dicom)
    outcomes = send(out, to, pauses_s=())
    assert next(outcomes).accepted
    orthanc.stop()
    assert [outcome.accepted for outcome in outcomes] == [False]
    orthanc.start()
    assert [(outcome.accepted, outcome.before) for outcome in send(out, to, pauses_s=())] == [
        (True, True),
        (True, False),
    ]
    assert len(orthanc.get("/instances")) == 2
