"""Models of a few weights, and scans to run them on.

`threshold_model` has weights set by hand, so that every voxel of its masks is known; `untrained_model` has random ones
and reads a neighbourhood, so that it sees how a scan is turned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.conftest import ROOT
from volseg.config import Recipe, load_recipe, recipe_from_dict
from volseg.models.folder import ModelFolder, TrainedOn, write_model
from volseg.network.unet import UNet

Array = npt.NDArray[Any]

#: Ranges of the hippocampus cases.
TRAINED_ON = TrainedOn(
    cases=("case_1", "case_2"),
    spacing_mm=((1.0, 1.0),) * 3,
    extent_mm=((31.0, 43.0), (40.0, 58.0), (26.0, 47.0)),
    intensity=((0.0, 400.0),),
    steps=1,
    seconds=1.0,
    threads=1,
    volseg="0.1.0",
)


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`content` with `changes` merged in, section by section."""
    merged = dict(content)
    for key, value in changes.items():
        merged[key] = (
            changed(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
        )
    return merged


def tiny_recipe(**changes: Any) -> Recipe:
    """The hippocampus recipe with a network of two stages and a window of 16 x 16 x 16."""
    content = load_recipe(ROOT / "pipelines" / "hippocampus.yaml").model_dump(mode="json")
    small: dict[str, Any] = {
        "name": "tiny",
        "window": [16, 16, 16],
        "network": {"features": [4, 8]},
        "mirroring": {"use": False},
        "postprocess": [],
        "training": {"held_out": []},
    }
    return recipe_from_dict(changed(changed(content, small), changes), "recipe")


def model_of(
    folder: Path, recipe: Recipe, states: dict[str, dict[str, Tensor]] | None = None, **trained_on: Any
) -> ModelFolder:
    """Write a model folder; untrained unless weights are given."""
    if states is None:
        torch.manual_seed(3)
        states = {"all": UNet.from_recipe(recipe).state_dict()}
    described = TRAINED_ON.model_copy(update=trained_on)
    return write_model(folder, recipe, described, states, card="# A test\n", metrics={})


def untrained_model(folder: Path, **changes: Any) -> ModelFolder:
    """A model that gives an arbitrary mask, depending on each voxel's neighbourhood."""
    return model_of(folder, tiny_recipe(**changes))


def threshold_weights(*, first: float = 100.5, second: float = 200.5) -> dict[str, Tensor]:
    """Weights of logits 0, x - first and 2 x - (first + second): the largest changes at `first` and `second`."""
    return {
        "encoder.0.blocks.0.0.weight": torch.ones(1, 1, 1, 1, 1),
        "encoder.0.blocks.0.0.bias": torch.zeros(1),
        "outputs.0.weight": torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1, 1),
        "outputs.0.bias": torch.tensor([0.0, -first, -(first + second)]),
    }


def threshold_recipe(**changes: Any) -> Recipe:
    """One convolution of one voxel: a mask that is a function of each voxel's value, on the scan's own grid."""
    point = {
        "name": "threshold",
        "spacing_mm": None,
        "window": [8, 8, 8],
        "intensity": {"scheme": "none"},
        "network": {
            "features": [1],
            "kernels": [[1, 1, 1]],
            "convolutions": 1,
            "normalisation": "none",
            "deep_supervision": False,
        },
    }
    return tiny_recipe(**changed(point, changes))


def threshold_model(folder: Path, folds: tuple[str, ...] = ("all",), **changes: Any) -> ModelFolder:
    """Label 1 from 101 to 200, label 2 from 201 on."""
    return model_of(folder, threshold_recipe(**changes), {fold: threshold_weights() for fold in folds})


def thresholded(array: Array) -> Array:
    """What `threshold_model` makes of `array`."""
    return (array > 100.5).astype(np.uint8) + (array > 200.5)


def scan(shape: tuple[int, int, int] = (35, 51, 32), seed: int = 0) -> Array:
    """Whole numbers from 0 to 300 without any symmetry, int16."""
    return np.random.default_rng(seed).integers(0, 301, shape).astype(np.int16)


def write_nifti(path: Path, array: Array, affine: Array | None = None) -> Path:
    """Write a scan in mm, its sform and qform set."""
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def write_dataset(folder: Path, cases: dict[str, tuple[Array, Array]]) -> Path:
    """Write (image, label) pairs in the MSD layout."""
    import json

    entries = []
    for name, (image, label) in cases.items():
        write_nifti(folder / "imagesTr" / f"{name}.nii.gz", image)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", label)
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"training": entries}))
    return folder


def blob_case(seed: int, shape: tuple[int, int, int] = (20, 18, 16)) -> tuple[Array, Array]:
    """Two bright boxes in noise, and their labels: the brighter is 2."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.uint8)
    i, j, k = (int(n) for n in rng.integers(1, 4, 3))
    labels[i : i + 6, j : j + 7, k : k + 8] = 1
    labels[i + 8 : i + 14, j + 3 : j + 11, k + 1 : k + 8] = 2
    image = np.array([50, 150, 250])[labels] + rng.normal(0, 5, shape)
    return image.astype(np.float32), labels
