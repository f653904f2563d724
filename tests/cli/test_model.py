"""``volseg model``: list, show, pack, import-nnunet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import Command
from tests.helpers.tiny import threshold_model
from volseg import models
from volseg.models.folder import weight_file


@pytest.fixture
def volseg_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_list(volseg_: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a"):
        threshold_model(tmp_path / name, name=name, description=f"What {name} segments", version="2.1")
    (tmp_path / "c").mkdir()
    monkeypatch.setattr(models, "_BUNDLED", tmp_path)
    done = volseg_("model", "list")
    assert (done.code, done.err) == (0, "")
    assert done.out == "a 2.1: What a segments\nb 2.1: What b segments\n"


def test_show(volseg_: Command, tmp_path: Path) -> None:
    folder = threshold_model(tmp_path / "m", folds=("0", "1"))
    done = volseg_("model", "show", tmp_path / "m")
    assert (done.code, done.err) == (0, "")
    shown = [line.split(maxsplit=1) for line in done.out.splitlines()]
    for expected in (
        ["sha256", folder.sha256],
        ["channel", "T1, modality MR"],
        ["folds", "0, 1 (sha256 as in model.json)"],
        ["grid", "RAS, spacing the scan's own, window 8 x 8 x 8"],
        ["spacing", "1 x 1 x 1 mm"],
    ):
        assert expected in shown
    assert "field of view 31-43 x 40-58 x 26-47 mm" in done.out
    labels = [line.split(maxsplit=1)[1] for line in done.out.splitlines() if line.startswith("label ")]
    assert [label.split(",")[0] for label in labels] == ["1 Anterior hippocampus", "2 Posterior hippocampus"]


def test_show_checks_the_weights(volseg_: Command, tmp_path: Path) -> None:
    threshold_model(tmp_path / "m")
    file = weight_file(tmp_path / "m", "all")
    file.write_bytes(file.read_bytes() + b"\0")
    done = volseg_("model", "show", tmp_path / "m")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"volseg: {file}: the weights were changed")
    assert done.err.count("\n") == 1


def test_show_of_nothing(volseg_: Command, tmp_path: Path) -> None:
    done = volseg_("model", "show", "hippocampsu")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("volseg: hippocampsu: neither a model folder nor a bundled model; bundled: ")


def test_pack_of_nothing(volseg_: Command, tmp_path: Path) -> None:
    done = volseg_("model", "pack", tmp_path, "-o", tmp_path / "m")
    assert (done.code, done.out) == (2, "")
    assert "is its folder a finished run of volseg train?" in done.err
    assert not (tmp_path / "m").exists()


def test_import_nnunet(volseg_: Command, tmp_path: Path, root: Path) -> None:
    folder = root / "tests" / "data" / "nnunet" / "residual"
    done = volseg_("model", "import-nnunet", folder, "-o", tmp_path / "m")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{tmp_path / 'm'}: model Dataset901_Small-3d_fullres with fold 2\n"
    shown = volseg_("model", "show", tmp_path / "m")
    assert shown.code == 0
    assert "channel       T1, modality any\n" in shown.out
    assert "trained on    not by volseg: see the card\n" in shown.out
    again = volseg_("model", "import-nnunet", folder, "-o", tmp_path / "m")
    assert (again.code, again.out) == (2, "")
    assert "exists already" in again.err


def test_import_of_another_folder(volseg_: Command, tmp_path: Path) -> None:
    done = volseg_("model", "import-nnunet", tmp_path, "-o", tmp_path / "m")
    assert (done.code, done.out) == (2, "")
    assert "plans.json: can't be read; is its folder the results of nnU-Net v2?" in done.err
    assert not (tmp_path / "m").exists()


def test_labels_and_where_their_codes_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    from volseg.cli.model import labels

    labels("hippocampus")
    out = capsys.readouterr().out
    assert "1 Anterior hippocampus: SCT 5366008 Hippocampus, Anterior (the model)" in out
    assert "private" not in out
