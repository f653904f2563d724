"""Whole predictions of imported nnU-Net models against nnunetv2's own: what `benchmarks/record_suite.py` recorded.

`python -m tests.helpers.nnunet_suite` compares what is recorded; with ``--live`` it records anew first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch

from tests.helpers import oracle
from tests.helpers.batch import segment
from volseg.inference import Model, Segmenter, load_model
from volseg.inference.engines import Engine, Precision
from volseg.inference.engines.head import Head
from volseg.inference.engines.stage1 import Stage1Engine
from volseg.loaders import find
from volseg.models.nnunet import import_nnunet
from volseg.network.unet import UNet, stage1_values
from volseg.preprocess import prepare
from volseg.preprocess.stage1 import prepare_second
from volseg.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "data" / "nnunet" / "suite"
KINDS = sorted(path.stem for path in RECORDED.glob("*.zip"))

Mask = npt.NDArray[np.int64]


class DoubleEngine:
    """A network in double precision."""

    name = "double"
    precision: Precision = "fp32"
    note: str | None = None
    head: Head | None = None
    values_held = 0.0

    def __init__(self, network: UNet) -> None:
        self.network = network.double().eval()

    def __call__(self, x_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) to (B, D, H, W, outputs), both float64."""
        with torch.inference_mode():
            values: torch.Tensor = self.network(x_BCDHW.double()).movedim(1, -1)
            return values


@dataclass(frozen=True)
class Compared:
    """One kind's masks.

    Attributes
    ----------
    mask
        Volseg's, from the file that `predict` writes.
    nnunet, nnunet_fp32
        nnunetv2's as it comes, and where it adds windows up in fp32.
    affine, nnunet_affine
        Of both files.
    exact, clear
        Of the float64 oracle, and where its two best classes are further apart than float32 rounding.
    """

    mask: Mask
    nnunet: Mask
    nnunet_fp32: Mask
    affine: Any
    nnunet_affine: Any
    exact: Mask
    clear: npt.NDArray[np.bool_]

    def differing(self, other: Mask) -> int:
        """Voxels in which volseg's mask is another."""
        return int((self.mask != other).sum())

    @property
    def worst_dice(self) -> float:
        """Smallest Dice of a label of nnunetv2's mask."""
        values = [value for value in np.unique(self.nnunet) if value]
        both = [((self.mask == value), (self.nnunet == value)) for value in values]
        return min(float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())) for ours, theirs in both)


def results_of(folder: Path) -> Path:
    """The results folder to import: of a cascade that of the second stage."""
    found = sorted((folder / "results").iterdir(), key=lambda path: "cascade" not in path.name)
    return found[0]


def unpacked(archive: Path, folder: Path) -> Path:
    """What was recorded of a kind, in a folder of its name."""
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder / archive.stem)
    return folder / archive.stem


def compare(archive: Path, folder: Path) -> Compared:
    """Import a recorded model, segment its scan from file to file, and read all masks."""
    kind = unpacked(archive, folder)
    model = load_model(import_nnunet(results_of(kind), kind / "model").path)
    (result,) = segment(kind / "images", kind / "out", model, formats=("nifti",))
    if result["status"] != "done":
        raise RuntimeError(f"{archive.stem}: {result['status']}: {result['reason']}")
    mask = nibabel.load(kind / "out" / result["case"] / "mask.nii.gz")
    nnunet, fp32 = (nibabel.load(kind / f"{name}.nii.gz") for name in ("mask", "mask_fp32"))
    (candidate,) = [found for found in find(kind / "images", channels=model.recipe.channels).candidates if found.usable]
    exact, clear = exact_labels(model, candidate.load())
    return Compared(
        mask=voxels(mask),
        nnunet=voxels(nnunet),
        nnunet_fp32=voxels(fp32),
        affine=mask.affine,
        nnunet_affine=nnunet.affine,
        exact=exact,
        clear=clear,
    )


def voxels(image: Any) -> Mask:
    """Whole numbers of a NIfTI image."""
    values: Mask = np.asanyarray(image.dataobj).astype(np.int64)
    return values


def exact_labels(model: Model, volume: Volume) -> tuple[Mask, npt.NDArray[np.bool_]]:
    """Labels of the float64 oracle; a cascade's second stage begins with the labels that volseg's first gives."""
    if model.stage1 is None:
        prepared = prepare(volume, model.recipe)
    else:
        prepared = prepare_second(volume, Segmenter(model.stage1).segment(volume).mask, model.recipe)
    engines: list[Engine] = []
    for fold in model.folder.manifest.weights:
        network = UNet.from_recipe(model.recipe, cascaded=model.stage1 is not None)
        network.load_state_dict(model.folder.weights(fold))
        engine = DoubleEngine(network)
        engines.append(engine if model.stage1 is None else Stage1Engine(engine, stage1_values(model.recipe)))
    mirrored: Sequence[int] = model.recipe.mirroring.axes if model.recipe.mirroring.use else ()
    return oracle.labels_of(prepared, engines, model.recipe, mirrored)


def main() -> None:
    """Print a table of agreement, one line a kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--live", action="store_true", help="let nnunetv2 in .venv-nnunet make and run every model now")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        archives = RECORDED
        if parser.parse_args().live:
            archives = Path(temporary) / "live"
            python = ROOT / ".venv-nnunet" / "bin" / "python"
            command = [str(python), "-m", "benchmarks.record_suite", "-o", str(archives), "--scale", "2"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        print(
            "| kind | voxels | as nnunetv2 | worst Dice | other than nnunetv2 in fp32 | other than the float64 oracle |"
        )
        print("|---|---|---|---|---|---|")
        agreed = []
        for archive in sorted(archives.glob("*.zip")):
            found = compare(archive, Path(temporary))
            size, clear = found.mask.size, found.clear
            wrong = int((found.mask != found.exact)[clear].sum())
            agreed.append((size - found.differing(found.nnunet), size, wrong))
            print(
                f"| {archive.stem} | {size} | {100 * agreed[-1][0] / size:.3f} % | {found.worst_dice:.4f} |"
                f" {found.differing(found.nnunet_fp32)} | {wrong} of {clear.sum()} clear |",
                flush=True,
            )
        same, count, wrong = (sum(column) for column in zip(*agreed, strict=True))
        share = f"{100 * same / count:.3f} % of {count} voxels as nnunetv2"
        print(f"\n{len(agreed)} kinds: {share}, {wrong} not as the oracle")
    sys.exit(wrong > 0 or same / count < 0.9995)


if __name__ == "__main__":
    main()
