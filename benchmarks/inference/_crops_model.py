"""A small nnU-Net for hippocampus crops, trained for a minute and saved by nnunetv2's trainer.

Run by `many_crops`, with the interpreter that has nnunetv2::

    .venv-nnunet/bin/python -m benchmarks.inference._crops_model DATASET OUT FEATURES SECONDS

The plan is what nnunetv2's planner makes of Task04 (window 40 x 56 x 40, four stages, spacing 1 mm), with as many first
features as asked for. The crops that `many_crops` predicts aren't among those that it sees.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch.nn import functional

WINDOW = (40, 56, 40)
#: The first crops in order of their names are predicted; training sees the next.
PREDICTED, SEEN = 65, 40
LABELS = {"background": 0, "anterior": 1, "posterior": 2}


def crops(dataset: Path, folder: str) -> list[Path]:
    """Files of a folder of the data set, without those that an archive program left."""
    return sorted(path for path in (dataset / folder).glob("*.nii.gz") if not path.name.startswith("."))


def plan(features: int) -> dict[str, Any]:
    """plans.json."""
    from benchmarks.record_nnunet import architecture, configuration, plans

    stages = [features * 2**stage for stage in range(4)]
    network = architecture(
        "PlainConvUNet", features_per_stage=stages, n_conv_per_stage=[2] * 4, n_conv_per_stage_decoder=[2] * 3
    )
    full = configuration(
        architecture=network,
        patch_size=list(WINDOW),
        spacing=[1.0, 1.0, 1.0],
        normalization_schemes=["ZScoreNormalization"],
    )
    return plans({"3d_fullres": full}, "SimpleITKIO", [0, 1, 2], 1)


def padded(path: Path) -> Any:
    """A crop as nnU-Net sees it (axes reversed), cut or padded to the window."""
    array = np.asarray(nibabel.load(path).dataobj).astype(np.float32).transpose(2, 1, 0)
    if "images" in path.parent.name:
        array = (array - array.mean()) / array.std()
    array = array[tuple(slice(0, size) for size in WINDOW)]
    return np.pad(array, [(0, size - found) for size, found in zip(WINDOW, array.shape, strict=True)])


def train(network: Any, dataset: Path, seconds: float) -> None:
    """Fit a network with deep supervision, of which the finest output counts here, with mirrored crops."""
    names = [path.name for path in crops(dataset, "imagesTr")[PREDICTED : PREDICTED + SEEN]]
    images = torch.from_numpy(np.stack([padded(dataset / "imagesTr" / name) for name in names]))[:, None]
    labels = torch.from_numpy(np.stack([padded(dataset / "labelsTr" / name) for name in names])).long()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    generator, start = torch.Generator().manual_seed(0), time.perf_counter()
    while time.perf_counter() - start < seconds:
        chosen = torch.randint(len(images), (2,), generator=generator)
        flips = [axis for axis in (1, 2, 3) if torch.rand((), generator=generator) < 0.5]
        logits = network(images[chosen].flip([axis + 1 for axis in flips]))[0]
        target = labels[chosen].flip(flips)
        shares = logits.softmax(1)[:, 1:]
        wanted = functional.one_hot(target, 3).movedim(-1, 1)[:, 1:]
        dice = 2 * (shares * wanted).sum((0, 2, 3, 4)) / (shares + wanted).sum((0, 2, 3, 4)).clamp(min=1)
        loss = functional.cross_entropy(logits, target) + 1 - dice.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"loss {loss.item():.3f} after {time.perf_counter() - start:.0f} s")


def main() -> None:
    """Write the results folder."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # type: ignore[import-not-found]

    dataset, out = Path(sys.argv[1]), Path(sys.argv[2])
    features, seconds = int(sys.argv[3]), float(sys.argv[4])
    from benchmarks.record_nnunet import dataset as dataset_json

    described = dataset_json(["MRI"], LABELS)
    with tempfile.TemporaryDirectory() as work:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = str(Path(work) / variable)
        cases = Path(work) / "nnUNet_preprocessed" / "Dataset901_Small" / "x"
        cases.mkdir(parents=True)
        (cases / "case.b2nd").touch()  # the trainer looks which kind of files there are
        given = plan(features) | {"continue_training": False}
        trainer = nnUNetTrainer(given, "3d_fullres", 0, described, device=torch.device("cpu"))
        trainer.initialize()
        train(trainer.network, dataset, seconds)
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        trainer.inference_allowed_mirroring_axes = (0, 1, 2)
        (out / "fold_0").mkdir(parents=True)
        trainer.save_checkpoint(str(out / "fold_0" / "checkpoint_final.pth"))
    (out / "plans.json").write_text(json.dumps(plan(features)), encoding="utf-8")
    (out / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


if __name__ == "__main__":
    main()
