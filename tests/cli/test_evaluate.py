from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from volseg.cli.evaluate import evaluate
from volseg.errors import UsageError


@pytest.fixture
def folders(sample_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two real references as predictions of themselves, the second on the first's grid: it can't be compared."""
    labels = sorted((sample_data / "hippocampus" / "labelsTr").glob("*.nii.gz"))[:2]
    reference = tmp_path / "labels"
    reference.mkdir()
    for label in labels:
        shutil.copy(label, reference)
        case = tmp_path / "out" / label.name.removesuffix(".nii.gz")
        case.mkdir(parents=True)
        shutil.copy(labels[0], case / "mask.nii.gz")
    return tmp_path / "out", reference


def first_only(folders: tuple[Path, Path]) -> tuple[Path, Path]:
    shutil.rmtree(sorted(folders[0].iterdir())[1])
    sorted(folders[1].iterdir())[1].unlink()
    return folders


def test_json_is_one_document_and_nothing_else(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    predicted, reference = first_only(folders)
    evaluate(predicted, reference, json_output=True)
    content = json.loads(capsys.readouterr().out)
    (case,) = content["cases"]
    assert [score["dice"] for score in case["labels"]] == [1, 1]
    assert [score["hd95_mm"] for score in case["labels"]] == [0, 0]
    assert content["not_evaluated"] == []


def test_the_table_and_the_files(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted, reference = first_only(folders)
    evaluate(predicted, reference, output=tmp_path / "scores", tolerance=2.5)
    captured = capsys.readouterr()
    assert "NSD within 2.5 mm" in captured.out
    assert "case 1 of 1" in captured.err
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["tolerance_mm"] == 2.5


@pytest.mark.parametrize("as_json", [True, False])
def test_a_case_that_can_t_be_compared_gives_1_and_the_rest_is_there(
    folders: tuple[Path, Path], tmp_path: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        evaluate(*folders, output=tmp_path / "scores", json_output=as_json)
    assert caught.value.exit_code == 1
    assert "grid-mismatch" in capsys.readouterr().out
    content = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert (len(content["cases"]), len(content["not_evaluated"])) == (1, 1)


def test_an_output_that_is_a_file_is_refused_before_the_work(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="-o needs a folder"):
        evaluate(*folders, output=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_written_where_a_path_isn_t_there(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        evaluate(tmp_path / "nowhere", folders[1], output=tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_the_command_itself_without_torch(folders: tuple[Path, Path]) -> None:
    predicted, reference = first_only(folders)
    code = (
        "import sys, typer\n"
        "from volseg.cli.evaluate import evaluate\n"
        "app = typer.Typer()\n"
        "app.command()(evaluate)\n"
        "app(standalone_mode=False)\n"
        "assert not {'torch', 'monai', 'highdicom', 'SimpleITK', 'matplotlib'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(predicted), str(reference), "--json", "--tolerance", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tolerance_mm"] == 2


def test_an_ignored_value(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    predicted, reference = first_only(folders)
    evaluate(predicted, reference, json_output=True, ignored=2)
    content = json.loads(capsys.readouterr().out)
    # What the reference has of label 2, all of the prediction's, is left out.
    assert [score["state"] for score in content["cases"][0]["labels"]] == ["scored"]
    assert content["ignored"] == 2
