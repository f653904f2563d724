"""One scan through an nnU-Net model: nnunetv2 and volseg, whole processes one after the other.

    make nnunet-peers
    .venv/bin/python benchmarks/inference/nnunet_case.py --model NNUNET_FOLDER --image CT.nii.gz [--factor 2]

NNUNET_FOLDER is a trained-model folder as nnU-Net v2 writes it, of one channel; in this project's development,
`../shared/data/nnunet/ct118` with `../shared/data/ct/example_ct.nii.gz`. The scan is made finer by `--factor` first, so
that restoring onto its grid weighs as it does for a clinical scan. Neither mirrors.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / ".venv-nnunet" / "bin" / "python"
#: Labels with fewer voxels aren't compared by Dice.
LARGE = 1000

NNUNET = """
import sys, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
predictor.initialize_from_trained_model_folder(sys.argv[1], use_folds=None, checkpoint_name="checkpoint_final.pth")
one = {"num_processes_preprocessing": 1, "num_processes_segmentation_export": 1}
predictor.predict_from_files(sys.argv[2], sys.argv[3], **one)
"""


def finer(source: Path, target: Path, factor: float) -> tuple[int, ...]:
    """Write a scan with voxels that are `factor` times smaller; return its shape."""
    image = nibabel.load(source)
    values = np.asarray(image.dataobj).astype(np.float32)
    values = ndimage.zoom(values, factor, order=1, grid_mode=True, mode="nearest").round().astype(np.int16)
    affine = image.affine.copy()
    affine[:3, :3] /= factor
    affine[:3, 3] = (image.affine @ [*[(1 / factor - 1) / 2] * 3, 1])[:3]
    nibabel.save(nibabel.Nifti1Image(values, affine), target)
    return values.shape


def measured(command: list[str], **environment: str) -> tuple[float, float]:
    """Wall seconds of a command, and the peak memory in GB of its largest process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:3]} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    """Run both, compare their masks, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--factor", type=float, default=2.0)
    arguments = parser.parse_args()
    if not PEER.exists():
        raise SystemExit("no .venv-nnunet: make nnunet-peers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        scan = folder / "in" / "ct_0000.nii.gz"
        shape = finer(arguments.image, scan, arguments.factor)
        volseg = [sys.executable, "-m", "volseg"]
        subprocess.run([*volseg, "model", "import-nnunet", arguments.model, "-o", folder / "model"], check=True)
        options = ["-o", str(folder / "ours"), "--model", str(folder / "model"), "--no-tta"]
        ours = measured([*volseg, "predict", str(scan), *options])
        paths = {name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        call = [str(PEER), "-c", NNUNET, str(arguments.model.resolve()), str(folder / "in"), str(folder / "theirs")]
        theirs = measured(call, **paths)
        found = np.asarray(nibabel.load(folder / "ours" / "ct_0000" / "mask.nii.gz").dataobj)
        wanted = np.asarray(nibabel.load(next((folder / "theirs").glob("*.nii.gz"))).dataobj)
    dice = [
        2 * ((found == value) & (wanted == value)).sum() / ((found == value).sum() + count)
        for value, count in zip(*np.unique(wanted, return_counts=True), strict=True)
        if value and count > LARGE
    ]
    print(
        f"scan {'x'.join(map(str, shape))}, {os.cpu_count()} cores, {platform.machine()}, {platform.python_version()}"
    )
    print("\n| | seconds | peak GB of the largest process |\n| --- | ---: | ---: |")
    print(f"| nnunetv2 | {theirs[0]:.1f} | {theirs[1]:.2f} |\n| volseg | {ours[0]:.1f} | {ours[1]:.2f} |")
    print(f"| times less | {theirs[0] / ours[0]:.1f} | {theirs[1] / ours[1]:.1f} |")
    print(
        f"\n{(found == wanted).mean():.4%} of voxels agree; worst Dice of the {len(dice)} labels above {LARGE} voxels: "
        f"{min(dice):.4f}"
    )


if __name__ == "__main__":
    main()
