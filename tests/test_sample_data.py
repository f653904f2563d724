"""The sample cases are whole, and what they are said to be."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np


def test_hippocampus_is_a_dozen_and_whole(sample_data: Path) -> None:
    folder = sample_data / "hippocampus"
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    listed = sorted(name for case in dataset["training"] for name in case.values())
    there = sorted(f"./{path.relative_to(folder).as_posix()}" for path in folder.glob("*Tr/*"))
    assert listed == there
    assert len(dataset["training"]) == dataset["numTraining"] == 12
    for case in dataset["training"]:
        image, label = (nib.load(folder / case[role]) for role in ("image", "label"))
        assert image.shape == label.shape
        np.testing.assert_allclose(image.affine, label.affine)
        assert set(np.unique(np.asanyarray(label.dataobj)).tolist()) == {0, 1, 2}


def test_hippocampus_is_copied_byte_for_byte(sample_data: Path, shared_data: Path) -> None:
    copies = sorted((sample_data / "hippocampus").glob("*Tr/*"))
    assert len(copies) == 24
    for copy in copies:
        assert copy.read_bytes() == (shared_data / copy.relative_to(sample_data)).read_bytes()


def test_every_folder_says_where_it_is_from(sample_data: Path) -> None:
    folders = sorted(path.name for path in sample_data.iterdir() if path.is_dir())
    overview = (sample_data / "README.md").read_text(encoding="utf-8")
    assert [name for name in folders if f"| `{name}/` |" not in overview] == []
    assert [name for name in folders if "icence" not in (sample_data / name / "README.md").read_text("utf-8")] == []
