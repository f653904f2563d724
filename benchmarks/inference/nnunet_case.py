"""One scan through an nnU-Net model: nnunetv2 and volseg, whole processes one after the other.

    make nnunet-peers
    .venv/bin/python -m benchmarks.inference.nnunet_case --model NNUNET_FOLDER --image CT.nii.gz [--factor 2]

NNUNET_FOLDER is a trained-model folder as nnU-Net v2 writes it, of one channel; in this project's development,
`../shared/data/nnunet/ct118` with `../shared/data/ct/example_ct.nii.gz`. The scan is made finer by `--factor` first, so
that restoring onto its grid weighs as it does for a clinical scan. Neither mirrors, unless `--mirror` makes a copy of
the model whose checkpoint allows all three axes: then both average eight passes. `--engine` is volseg's.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.inference._compare import ROOT, finer, labels_in, measured, report

PEER = ROOT / ".venv-nnunet" / "bin" / "python"

NNUNET = """
import sys, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
how = {"use_mirroring": sys.argv[4] == "mirror", "perform_everything_on_device": False, "device": torch.device("cpu")}
predictor = nnUNetPredictor(**how)
predictor.initialize_from_trained_model_folder(sys.argv[1], use_folds=None, checkpoint_name="checkpoint_final.pth")
one = {"num_processes_preprocessing": 1, "num_processes_segmentation_export": 1}
predictor.predict_from_files(sys.argv[2], sys.argv[3], **one)
"""


def mirroring(model: Path, copy: Path) -> Path:
    """A copy of a trained-model folder whose checkpoints allow mirroring along all axes."""
    shutil.copytree(model, copy)
    for file in copy.glob("fold_*/checkpoint_*.pth"):
        checkpoint = torch.load(file, weights_only=False, map_location="cpu")
        torch.save({**checkpoint, "inference_allowed_mirroring_axes": (0, 1, 2)}, file)
    return copy


def main() -> None:
    """Run both, compare their masks, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--factor", type=float, default=2.0)
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    if not PEER.exists():
        raise SystemExit("no .venv-nnunet: make nnunet-peers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        scan = folder / "in" / "ct_0000.nii.gz"
        shape = finer(arguments.image, scan, arguments.factor)
        volseg: list[str | Path] = [sys.executable, "-m", "volseg"]
        model = mirroring(arguments.model, folder / "nnunet") if arguments.mirror else arguments.model.resolve()
        subprocess.run([*volseg, "model", "import-nnunet", model, "-o", folder / "model"], check=True)
        options = ("-o", folder / "ours", "--model", folder / "model", "--engine", arguments.engine)
        ours = measured([*volseg, "predict", scan, *options, "--tta" if arguments.mirror else "--no-tta"])
        paths = {name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        call = [PEER, "-c", NNUNET, model, folder / "in", folder / "theirs", "mirror" if arguments.mirror else "once"]
        theirs = measured(call, paths)
        found = labels_in(folder / "ours" / "ct_0000" / "mask.nii.gz")
        wanted = labels_in(next((folder / "theirs").glob("*.nii.gz")))
    print(report(shape, {"nnunetv2": theirs, f"volseg, engine {arguments.engine}": ours}, found, wanted))


if __name__ == "__main__":
    main()
