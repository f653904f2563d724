"""Many small scans in one call: 65 hippocampus crops through an nnU-Net, by nnunetv2 and by volseg, whole processes.

    make nnunet-peers
    .venv/bin/python -m benchmarks.inference.many_crops --dataset MSD_TASK04 [--features 16] [--seconds 60]

MSD_TASK04 is the hippocampus task of the Medical Segmentation Decathlon; in this project's development,
`../shared/data/hippocampus`. The network is trained first, for `--seconds`, unless `--model` names a results folder. It
has as many features as volseg's bundled model; nnU-Net's own plan has 32. nnunetv2 runs with its default processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._machine import machine
from benchmarks.inference._compare import ROOT, Run, labels_in, measured
from benchmarks.inference._crops_model import PREDICTED, crops

PEER = ROOT / ".venv-nnunet" / "bin"


def linked(dataset: Path, folder: Path) -> None:
    """The crops under the names that nnU-Net wants."""
    folder.mkdir()
    for path in crops(dataset, "imagesTr")[:PREDICTED]:
        (folder / path.name.replace(".nii.gz", "_0000.nii.gz")).symlink_to(path.resolve())


def theirs(model: Path, images: Path, out: Path, *, mirror: bool) -> Run:
    """Predict by nnunetv2's own command."""
    command: list[str | Path] = [PEER / "nnUNetv2_predict_from_modelfolder", "-i", images, "-o", out, "-m", model]
    command += ["-f", "0", "-device", "cpu", *([] if mirror else ["--disable_tta"])]
    paths = {name: str(out.parent) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return measured(command, paths)


def ours(model: Path, images: Path, out: Path, *options: str) -> Run:
    """Predict by volseg's own command."""
    return measured([sys.executable, "-m", "volseg", "predict", images, "-o", out, "--model", model, *options])


def agreement(found: Path, wanted: Path) -> str:
    """In how far the masks of two folders are the same."""
    equal, voxels, dice = 0, 0, []
    for path in sorted(wanted.glob("*.nii.gz")):
        theirs, ours = labels_in(path), labels_in(found / path.name.replace(".nii.gz", "_0000") / "mask.nii.gz")
        equal, voxels = equal + int((theirs == ours).sum()), voxels + theirs.size
        for value in (1, 2):
            both = (theirs == value).sum() + (ours == value).sum()
            dice.append(2 * ((theirs == value) & (ours == value)).sum() / both if both else 1.0)
    return f"{equal / voxels:.4%} of voxels agree; Dice of a label {np.mean(dice):.4f}, at least {min(dice):.4f}"


def main() -> None:
    """Train where there is no model, run all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("options", nargs="*", help="of volseg predict, after --")
    arguments = parser.parse_args()
    if not PEER.exists():
        raise SystemExit("no .venv-nnunet: make nnunet-peers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        linked(arguments.dataset, folder / "in")
        model = arguments.model or folder / "nnunet"
        if arguments.model is None:
            given = (arguments.dataset.resolve(), model, str(arguments.features), str(arguments.seconds))
            subprocess.run([PEER / "python", "-m", "benchmarks.inference._crops_model", *given], check=True, cwd=ROOT)
        command = [sys.executable, "-m", "volseg", "model", "import-nnunet", model, "-o", folder / "model"]
        subprocess.run(command, check=True)
        print(f"\n{PREDICTED} crops, {machine()}")
        print("\n| | nnunetv2 s | volseg s | times less | GB at once, nnunetv2 | volseg |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        said = []
        for mirror in (False, True):
            name = "mirrored along three axes" if mirror else "not mirrored"
            peer = theirs(model, folder / "in", folder / f"theirs {mirror}", mirror=mirror)
            tta = "--tta" if mirror else "--no-tta"
            own = ours(folder / "model", folder / "in", folder / f"ours {mirror}", tta, *arguments.options)
            print(
                f"| {name} | {peer.seconds:.1f} | {own.seconds:.1f} | {peer.seconds / own.seconds:.1f} |"
                f" {peer.together_gb:.2f} | {own.together_gb:.2f} |"
            )
            said.append(f"{name}: {agreement(folder / f'ours {mirror}', folder / f'theirs {mirror}')}")
        print("\n" + "\n".join(said))


if __name__ == "__main__":
    main()
