"""``volseg plan``: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.command import Command
from tests.helpers.tiny import blob_case, write_dataset, write_nifti
from volseg.config import load_recipe


@pytest.fixture
def volseg_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(3)})


def test_from_a_dataset_to_a_recipe(volseg_: Command, tmp_path: Path, data: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    done = volseg_("plan", data, "-o", recipe, "--minutes", "0.1", "--memory", "2GB")
    assert (done.code, done.out.splitlines()[0].split(".")[0]) == (0, f"{recipe}".split(".")[0])
    assert f"volseg train {recipe} --data {data} -o RUN --minutes 0.1" in done.out
    assert load_recipe(recipe).spacing_mm == (1.0, 1.0, 1.0)
    text = " ".join(recipe.read_text().replace("\n# ", " ").split())
    assert "for 0.1 minutes a model and 2 GB of memory" in text
    assert "Measured on this machine, the network alone on noise" in text
    first = load_recipe(recipe)
    assert volseg_("plan", data, "-o", recipe, "--minutes", "0.1", "--memory", "2GB").code == 0
    assert load_recipe(recipe) == first


def test_json_is_one_document(volseg_: Command, tmp_path: Path, data: Path) -> None:
    done = volseg_("plan", data, "-o", tmp_path / "recipe.yaml", "--json", "--minutes", "0.1")
    content = json.loads(done.out)
    assert [case["shape_RAS"] for case in content["cases"]] == [[20, 18, 16]] * 3
    assert content["labels"][0]["cases"] == 3
    assert (tmp_path / "recipe.yaml").exists()


def test_all_cases_that_can_t_be_used_are_listed(volseg_: Command, tmp_path: Path, data: Path) -> None:
    for name in ("case_0", "case_2"):
        write_nifti(data / "labelsTr" / f"{name}.nii.gz", blob_case(0)[1], np.diag([1, 2, 1, 1]))
    done = volseg_("plan", data, "-o", tmp_path / "recipe.yaml")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert [line.split(":")[0] for line in lines[-3:]] == ["case_0", "case_2", "volseg"]
    assert "voxel centres up to 17 mm apart" in lines[-3]
    assert lines[-1].startswith("volseg: 2 of 3 cases can't be used: case_0 (grid-mismatch), case_2 (grid-mismatch)")
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere", "-o", "x.yaml"), "no dataset"),
        (("DATA", "-o", "."), "-o needs a file"),
        (("DATA", "-o", "absent/x.yaml"), "-o needs a file"),
        (("DATA", "-o", "x.yaml", "--memory", "much"), "'much' is not an amount of memory"),
        (("DATA", "-o", "x.yaml", "--minutes", "0"), "--minutes"),
    ],
)
def test_a_wrong_call(
    volseg_: Command,
    tmp_path: Path,
    data: Path,
    arguments: tuple[str, ...],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = volseg_("plan", *(str(data) if word == "DATA" else word for word in arguments))
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert not list(tmp_path.rglob("*.yaml"))
