from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import Command
from tests.helpers.pacs_node import UNCLOSED, node
from tests.helpers.scans import blobs, scan_from, write_series
from volseg.export import dicom_seg

pytestmark = UNCLOSED


@pytest.fixture
def volseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_send_twice_to_a_named_destination(volseg: Command, tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "out").mkdir()
    mask = blobs(*scan_from(write_series(tmp_path / "series")))
    dicom_seg.write(mask, tmp_path / "out" / "mask.seg.dcm")
    with node(lambda _: 0) as to:
        file = tmp_path / "d.toml"
        file.write_text(f'[pacs]\naet = "{to.aet}"\nhost = "{to.host}"\nport = {to.port}\n')
        arguments = ("send", tmp_path / "out", "--to", "pacs", "--destinations", file)
        assert volseg(*arguments).out == "pacs: 1 sent\n"
        assert volseg(*arguments).out == "pacs: 1 already there\n"
    with node(lambda _: 0x0122) as to:
        done = volseg("send", tmp_path / "out" / "mask.seg.dcm", "--to", f"{to.aet}@{to.host}:{to.port}")
        assert done.code == 1
        assert "1 not accepted" in done.out
        assert "mask.seg.dcm: status 0x0122" in done.err


def test_a_destination_that_there_is_not(volseg: Command, tmp_path: Path) -> None:
    assert volseg("send", tmp_path, "--to", "nobody", "--destinations", tmp_path / "d.toml").code == 2
