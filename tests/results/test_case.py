"""``result.json``: written whole, read whatever version wrote it, refused where it can't be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volseg.errors import InputError
from volseg.geometry import Geometry
from volseg.results import RESULT
from volseg.results.case import CaseResult, GeometryResult, LabelResult, SourceResult, known, read, write
from volseg.results.settings import Settings

FULL = CaseResult(
    case="scan",
    status="done",
    source=SourceResult(kind="nifti", path="scan.nii.gz", sha256="cd"),
    geometry=GeometryResult.of(Geometry((4, 5, 6), np.diag([-2.0, -1, 3, 1]))),
    volseg="0.1.0",
    options=Settings(tta=True, labels=("liver",)),
    engine="torch",
    seconds={"load": 0.5},
    labels=(LabelResult(value=1, name="liver", volume_ml=0.5, voxels=9, touches_border=("L", "S")),),
    flags=("note: a slice was evened out",),
    files={"mask.nii.gz": "ab"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "scan", FULL)
    assert read(tmp_path / "scan") == FULL
    assert known(tmp_path / "scan") == FULL


def test_the_file_is_plain_json_in_a_fixed_order(tmp_path: Path) -> None:
    write(tmp_path, FULL.model_copy(update={"reused": True}))
    content = json.loads((tmp_path / RESULT).read_text())
    assert list(content) == [
        "case", "status", "code", "reason", "source", "geometry", "volseg", "model", "options", "engine", "precision",
        "threads", "windows", "tile_step", "seconds", "peak_memory_mb", "labels", "flags", "files",
    ]  # fmt: skip
    assert content["geometry"] == {
        "shape": [4, 5, 6],
        "spacing_mm": [2, 1, 3],
        "affine": [[-2, 0, 0, 0], [0, -1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]],
        "orientation": "LPS",
    }
    assert content["labels"][0]["touches_border"] == ["L", "S"]


def test_an_older_result_gets_the_defaults_and_a_newer_ones_keys_are_passed_over(tmp_path: Path) -> None:
    older: dict[str, Any] = {"case": "a", "status": "done", "volseg": "0.0.9", "options": {"tta": False}}
    (tmp_path / RESULT).write_text(json.dumps({**older, "from_the_future": 1}))
    result = read(tmp_path)
    assert (result.case, result.status, result.volseg) == ("a", "done", "0.0.9")
    assert (result.labels, result.options) == ((), Settings(tta=False))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "volseg unknown"),
        ('{"case": "a"}', "volseg unknown"),
        ('{"case": "a", "status": "brilliant", "volseg": "9.1"}', "volseg 9.1): status: "),
        ('{"case": "a", "status": "done", "volseg": "0.0.1", "labels": [1]}', "volseg 0.0.1): labels.0: "),
        ('{"case": "a", "status": "done", "seconds": {"load": NaN}}', "seconds.load: "),
    ],
)
def test_what_is_no_result_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / RESULT).write_text(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert caught.value.code == "unreadable"
    assert caught.value.path == tmp_path / RESULT
    assert said in caught.value.reason
    assert known(tmp_path) is None


def test_a_folder_without_a_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result can be read"):
        read(tmp_path / "absent")


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FULL)
    before = (tmp_path / RESULT).read_bytes()
    with pytest.raises(ValueError, match="finite"):
        CaseResult(case="a", status="done", seconds={"load": float("nan")})

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path, FULL)
    assert [path.name for path in tmp_path.iterdir()] == [RESULT]
    assert (tmp_path / RESULT).read_bytes() == before


def test_every_option_says_whether_the_result_depends_on_it() -> None:
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), name
        assert isinstance(extra["affects_result"], bool), name
        assert field.description, name
    assert Settings(memory=1).key() == Settings(memory=2).key()
    assert Settings(tta=True).key() != Settings(tta=False).key()
    assert set(Settings().key()) == set(Settings.model_fields) - {"memory"}
