"""Data sets of boxes whose description names their labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.tiny import Array, blob_case, write_dataset


def dataset(folder: Path, cases: dict[str, tuple[Array, Array]], **description: Any) -> Path:
    """An MSD folder whose description says more."""
    write_dataset(folder, cases)
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **description}))
    return folder


def three(**description: Any) -> dict[str, tuple[Array, Array]]:
    return {f"case_{n}": blob_case(n, **description) for n in range(3)}


NAMED = {"name": "Two Boxes!", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "dark", "2": "bright"}}


def sided(flip: bool) -> tuple[Array, Array]:
    """Two boxes of a size on either side, and one in the middle above them."""
    labels = np.zeros((20, 14, 12), np.uint8)
    labels[2:6, 4:8, 3:7], labels[14:18, 4:8, 3:7], labels[8:12, 4:8, 8:11] = 1, 2, 3
    return np.zeros(labels.shape, np.int16), labels[::-1] if flip else labels
