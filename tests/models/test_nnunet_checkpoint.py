"""Unpickling foreign checkpoints: what nnU-Net saves, and nothing that runs code."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from volseg.errors import ModelError
from volseg.models.nnunet_checkpoint import read_checkpoint, renamed_weights

SAVED = Path(__file__).parents[1] / "data" / "nnunet" / "plain" / "fold_0" / "checkpoint_final.pth"


def rewritten(path: Path, edit: Callable[[bytes], bytes]) -> Path:
    """The checkpoint with its pickle changed."""
    with zipfile.ZipFile(SAVED) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, edit(content) if name.endswith("/data.pkl") else content)
    return path


def minimal(**more: Any) -> dict[str, Any]:
    return {
        "network_weights": {"x.weight": torch.zeros(1)},
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnUNetTrainer",
        **more,
    }


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


class Harmful:
    """Its unpickling would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_what_nnunets_trainer_saved() -> None:
    with zipfile.ZipFile(SAVED) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        assert b"numpy._core.multiarray" in archive.read(name)  # or this test would show nothing
    checkpoint = read_checkpoint(SAVED)
    assert (checkpoint.configuration, checkpoint.trainer) == ("3d_fullres", "nnUNetTrainer")
    assert (checkpoint.epochs, checkpoint.mirroring) == (1, (0, 2))


def test_numpys_older_module_name(tmp_path: Path) -> None:
    path = rewritten(
        tmp_path / "old.pth", lambda content: content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )
    assert path.read_bytes() != SAVED.read_bytes()
    old, new = read_checkpoint(path).weights, read_checkpoint(SAVED).weights
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in new)


@pytest.mark.parametrize("name", ["bool", "i1", "i8", "u2", "f2", "f4", "f8"])
def test_numpys_numbers_and_arrays(name: str, tmp_path: Path) -> None:
    values = np.ones((2, 3), name)
    path = saved(tmp_path / "c.pth", minimal(logging={"losses": [values[0, 0]], "all": values}))
    assert read_checkpoint(path).epochs is None


def test_a_type_that_is_not_on_the_list_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", minimal(extra=Harmful(tmp_path / "made")))
    with pytest.raises(ModelError, match=r"c\.pth: the checkpoint holds \w+\.mkdir, which is not among the types"):
        read_checkpoint(path)
    assert not (tmp_path / "made").exists()


def test_the_list_is_in_force_only_while_a_checkpoint_is_read(tmp_path: Path) -> None:
    read_checkpoint(SAVED)
    path = saved(tmp_path / "c.pth", minimal(number=np.float64(1)))
    with pytest.raises(pickle.UnpicklingError, match="scalar"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("cut", [0, 1, 100, 30_000])
def test_a_damaged_file(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(SAVED.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"cut\.pth: not a checkpoint of nnU-Net v2, or a damaged one"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        minimal(network_weights={}),
        minimal(network_weights={"x": 1}),
        minimal(init_args={}),
        minimal(current_epoch="many"),
        torch.zeros(3),
    ],
)
def test_another_file_of_torch(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"c\.pth: not a checkpoint of nnU-Net v2"):
        read_checkpoint(saved(tmp_path / "c.pth", content))


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"c\.pth: the checkpoint can't be read: No such file"):
        read_checkpoint(tmp_path / "c.pth")


def test_prefixes_of_wrappers_and_half_precision(tmp_path: Path) -> None:
    weights = {"module._orig_mod.decoder.seg_layers.1.weight": torch.ones(2, 1, 1, 1, 1, dtype=torch.float16)}
    path = saved(tmp_path / "c.pth", minimal(network_weights=weights))
    state = renamed_weights(read_checkpoint(path), {"outputs.0.weight": torch.zeros(2, 1, 1, 1, 1)}, stages=3)
    assert state["outputs.0.weight"].dtype == torch.float32
