from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from tests.helpers.pacs_node import UNCLOSED, node
from tests.helpers.scans import blobs, scan_from, write_series
from volseg.errors import UsageError
from volseg.export import dicom_rtstruct, dicom_seg
from volseg.send.destination import Destination, Dimse, Web, destination
from volseg.send.instances import SENT, find_instances
from volseg.send.run import Outcome, send

pytestmark = UNCLOSED

NO_PAUSES = (0.0, 0.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A case's folder with a SEG, a label map, an RTSTRUCT and files that aren't DICOM."""
    (tmp_path / "series").mkdir()
    mask = blobs(*scan_from(write_series(tmp_path / "series")))
    folder = tmp_path / "out" / "case"
    folder.mkdir(parents=True)
    dicom_seg.write(mask, folder / "mask.seg.dcm")
    dicom_seg.write(mask, folder / "mask.labelmap.dcm", kind="labelmap")
    dicom_rtstruct.write(mask, folder / "mask.rtstruct.dcm")
    (folder / "result.json").write_text("{}")
    (folder / "empty.dcm").write_bytes(b"")
    return tmp_path / "out"


def sent_to(out: Path, to: Destination) -> list[Outcome]:
    return list(send(out, to, pauses_s=NO_PAUSES))


def test_every_dicom_file_arrives_as_it_is_and_once(out: Path) -> None:
    arrived: dict[str, bytes] = {}

    def keep(event: Any) -> int:
        arrived[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0

    with node(keep) as to:
        outcomes = sent_to(out, to)
        assert [outcome.accepted for outcome in outcomes] == [True] * 3
        for outcome in outcomes:
            # The data set's bytes, behind the file meta information.
            assert outcome.instance.path.read_bytes().endswith(arrived[outcome.instance.sop_instance_uid])
        arrived.clear()
        assert [outcome.before for outcome in sent_to(out, to)] == [True] * 3
        assert arrived == {}
    # Another destination has none of them.
    with node(keep) as other:
        assert [outcome.before for outcome in sent_to(out, other)] == [False] * 3


def test_a_file_that_was_written_anew_is_sent_again(out: Path) -> None:
    with node(lambda _: 0) as to:
        sent_to(out, to)
        path = out / "case" / "mask.rtstruct.dcm"
        dataset = pydicom.dcmread(path)
        dataset.StructureSetLabel = "new"
        dataset.save_as(path)
        assert [outcome.before for outcome in sent_to(out, to)] == [True, True, False]


def test_a_node_that_refuses_one_and_has_no_room_for_another(out: Path) -> None:
    tries: list[str] = []

    def judge(event: Any) -> int:
        tries.append(event.request.AffectedSOPClassUID)
        if event.request.AffectedSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4":
            return 0x0122  # not supported: final
        if event.request.AffectedSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7":
            return 0xA700 if tries.count(event.request.AffectedSOPClassUID) < 3 else 0
        return 0

    waits: list[str] = []
    with node(judge) as to:
        outcomes = list(send(out, to, pauses_s=NO_PAUSES, waiting=lambda why, _: waits.append(why)))
    by_name = {outcome.instance.path.name: outcome for outcome in outcomes}
    assert not by_name["mask.seg.dcm"].accepted
    assert "0x0122" in by_name["mask.seg.dcm"].said
    assert by_name["mask.rtstruct.dcm"].accepted
    assert by_name["mask.labelmap.dcm"].accepted
    assert len(waits) == 2
    assert tries.count("1.2.840.10008.5.1.4.1.1.66.4") == 1


def test_a_node_that_dies_halfway_and_a_second_call(out: Path) -> None:
    count = 0

    def die(event: Any) -> int:
        nonlocal count
        count += 1
        if count > 1:
            event.assoc.abort()
        return 0

    with node(die) as to:
        outcomes = sent_to(out, to)
    assert [outcome.accepted for outcome in outcomes] == [True, False, False]
    lines = [json.loads(line) for line in (out / SENT).read_text().splitlines() if line]
    assert [line["instance"] for line in lines] == [outcomes[0].instance.sop_instance_uid]


def test_nobody_there_and_a_kind_that_the_node_doesnt_take(out: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcomes = sent_to(out, Dimse(aet="NODE", host="127.0.0.1", port=port))
    assert [outcome.accepted for outcome in outcomes] == [False] * 3
    assert "doesn't answer" in outcomes[0].said
    ae = AE(ae_title="NODE")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    outcomes = sent_to(out, Dimse(aet="NODE", host="127.0.0.1", port=server.server_address[1]))
    server.shutdown()
    assert [outcome.accepted for outcome in outcomes] == [False] * 3
    assert "none of these kinds" in outcomes[0].said


def test_a_title_that_the_node_doesnt_know(out: Path) -> None:
    with node(lambda _: 0, require_calling_aet=["FRIEND"]) as to:
        assert "is VOLSEG known to it?" in sent_to(out, to)[0].said
        assert all(outcome.accepted for outcome in sent_to(out, to.model_copy(update={"calling": "FRIEND"})))


class _Stow(http.server.BaseHTTPRequestHandler):
    answers: list[tuple[int, bytes]]
    bodies: list[tuple[str, str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append((self.path, self.headers["Authorization"], body))
        status, content = self.answers.pop(0) if self.answers else (200, b"{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web(*answers: tuple[int, bytes]) -> Iterator[tuple[Web, list[tuple[str, str | None, bytes]]]]:
    handler = type("Handler", (_Stow,), {"answers": list(answers), "bodies": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web/"
    try:
        yield Web(url=url, authorization="Bearer x"), handler.bodies  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_stow(out: Path) -> None:
    with web() as (to, bodies):
        assert [outcome.accepted for outcome in sent_to(out, to)] == [True] * 3
        for (path, authorization, body), instance in zip(bodies, find_instances(out), strict=True):
            assert (path, authorization) == ("/dicom-web/studies", "Bearer x")
            assert instance.path.read_bytes() in body
            assert body.startswith(b"--")
            assert body.endswith(b"--\r\n")
        assert [outcome.before for outcome in sent_to(out, to)] == [True] * 3
        assert len(bodies) == 3


def test_stow_that_is_busy_refuses_and_says_200_for_what_it_didnt_store(out: Path) -> None:
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [290]}}]}}
    with web((503, b""), (409, b"no"), (200, json.dumps(failed).encode())) as (to, _):
        outcomes = {outcome.instance.path.name: outcome for outcome in sent_to(out, to)}
    assert outcomes["mask.labelmap.dcm"].accepted
    assert "409" in outcomes["mask.rtstruct.dcm"].said
    assert "0x0122" in outcomes["mask.seg.dcm"].said


def test_nothing_to_send(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        find_instances(tmp_path / "gone")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(UsageError, match="holds no DICOM file"):
        find_instances(tmp_path)


def test_destinations(tmp_path: Path) -> None:
    file = tmp_path / "destinations.toml"
    file.write_text(
        '[pacs]\naet = "PACS"\nhost = "h"\nport = 104\ncalling = "US"\n[pacs.tls]\nca = "ca.pem"\n'
        '[cloud]\nurl = "https://x/dicom-web"\nauthorization = "Bearer secret"\n'
    )
    pacs = destination("pacs", file)
    assert isinstance(pacs, Dimse)
    assert pacs.tls is not None
    assert (str(pacs), pacs.calling, pacs.tls.ca) == ("PACS@h:104", "US", tmp_path / "ca.pem")
    cloud = destination("cloud", file)
    assert str(cloud) == "https://x/dicom-web"
    assert "secret" not in repr(cloud)
    assert destination("MY AET@10.0.0.1:11112", None) == Dimse(aet="MY AET", host="10.0.0.1", port=11112)
    assert destination("http://x/y", None) == Web(url="http://x/y")
    with pytest.raises(UsageError, match="TLS"):
        pacs.tls.context()


@pytest.mark.parametrize(
    ("word", "content", "match"),
    [
        ("pacs", None, "neither"),
        ("pacs", "[other]\nurl = 'http://x'", "has no destination pacs; it has other"),
        ("pacs", "[pacs]\nurl = 'ftp://x'", "pacs"),
        ("pacs", "[pacs]\naet = 'A'\nhost = 'h'\nport = 0", "port"),
        ("pacs", "not toml", "no file of destinations"),
        ("A@h:70000", None, "65535"),
    ],
)
def test_destinations_that_are_none(tmp_path: Path, word: str, content: str | None, match: str) -> None:
    file = tmp_path / "d.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=match):
        destination(word, file)
