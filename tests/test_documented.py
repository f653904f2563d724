"""Every block of code in README and docs does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.documented import Block, blocks, run
from tests.helpers.nnunet_suite import RECORDED, results_of, unpacked
from tests.helpers.tiny import blob_case, threshold_model, tiny_recipe, write_dataset

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
#: First words of blocks that are no code.
PICTURES = {"docs/flow.md": "path", "docs/quality.md": "OUT", "docs/synthesis.md": "label"}


def of(*languages: str) -> list[object]:
    """Blocks in these languages, as parameters of a test."""
    return [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS if block.language in languages]


def study(folder: Path) -> None:
    """A study that the block's model is for: like what it is trained on, or the sample."""
    images = [*folder.glob("DATASET/imagesTr"), *folder.glob("unpacked/*/images")]
    shutil.copytree(images[0] if images else ROOT / "sample_data" / "study", folder / "STUDY")


def scans(folder: Path) -> None:
    shutil.copytree(ROOT / "sample_data" / "study" / "mr", folder / "SCANS" / "mr")


def dataset(folder: Path) -> None:
    write_dataset(folder / "DATASET", {f"case_{n}": blob_case(n) for n in range(5)})


def recipe(folder: Path, name: str = "recipe.yaml") -> None:
    content = tiny_recipe(window=[8, 8, 8], training={"folds": 2, "batch_size": 1}).model_dump(mode="json")
    (folder / name).write_text(yaml.safe_dump(content))


def trained_by_nnunet(folder: Path, name: str = "FOLDER") -> None:
    shutil.copytree(results_of(unpacked(RECORDED / "plain.zip", folder / "unpacked")), folder / name)


def reference(folder: Path) -> None:
    """Masks that the first block's cases are scored against: their own."""
    command = [sys.executable, "-m", "volseg", "predict", "STUDY", "-o", "earlier", "--model", "hippocampus"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    for mask in (folder / "earlier").glob("*/mask.nii.gz"):
        (folder / "REFERENCE").mkdir(exist_ok=True)
        shutil.copyfile(mask, folder / "REFERENCE" / f"{mask.parent.name}.nii.gz")


#: What a reader has: the words that blocks write in capitals, and what makes them.
GIVEN: dict[str, Callable[[Path], object]] = {
    "SCANS": scans,
    "DATASET": dataset,
    "RECIPE": lambda folder: recipe(folder, "RECIPE"),
    "recipe.yaml": recipe,
    "FOLDER": trained_by_nnunet,
    "TRAINED_FOLDER": lambda folder: trained_by_nnunet(folder, "TRAINED_FOLDER"),
    "STUDY": study,
    "REFERENCE": reference,
    "MODEL": lambda folder: threshold_model(folder / "MODEL"),
}


@pytest.mark.slow
@pytest.mark.parametrize("block", of("sh"))
def test_shell(block: Block, tmp_path: Path) -> None:
    made = set(re.findall(r"-o (\S+)", block.text))
    for word, give in GIVEN.items():
        if word not in made and re.search(rf"(?<![\w-]){re.escape(word)}\b", block.text):
            give(tmp_path)
    done = run(block, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("block", of("python"))
def test_python(block: Block, tmp_path: Path) -> None:
    study(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_block_is_code_that_runs_or_a_picture() -> None:
    others = [
        (block.page, block.text.split()[0].split("/")[0]) for block in BLOCKS if block.language not in {"sh", "python"}
    ]
    assert others == list(PICTURES.items())
    assert {"volseg", "make", "docker", "torchrun"} <= {word for block in BLOCKS for word in block.text.split()}
