"""One scan through TotalSegmentator and through volseg, whole processes one after the other.

    make totalsegmentator-peers
    .venv/bin/python -m benchmarks.inference.totalsegmentator_case --model NNUNET_FOLDER --image CT.nii.gz [--factor 2]

NNUNET_FOLDER takes the place of TotalSegmentator's 3 mm weights: a trained-model folder of nnU-Net v2 with a spacing
of 3 mm, one channel, `nnUNetPlans` and `3d_fullres`; in this project's development, `../shared/data/nnunet/ct118` with
`../shared/data/ct/example_ct.nii.gz`. volseg imports the same folder with `--profile totalsegmentator`. The scan is
made finer by `--factor` first; 1 leaves it as it is. Nothing is downloaded or sent.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel

from benchmarks.inference._compare import ROOT, finer, labels_in, measured, report

PEER = ROOT / ".venv-totalseg" / "bin" / "TotalSegmentator"
#: Where TotalSegmentator looks for the weights of ``--task total --fast``.
WEIGHTS = "Dataset297_TotalSegmentator_total_3mm_1559subj/nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"


def offline(folder: Path, model: Path) -> dict[str, str]:
    """Environment in which TotalSegmentator takes `model` for its 3 mm weights, and doesn't use the network.

    Parameters
    ----------
    folder
        Gets its settings and the weights.
    model
        Results folder of nnU-Net.
    """
    shutil.copytree(model, folder / "weights" / WEIGHTS)
    (folder / "home").mkdir()
    settings = {
        "totalseg_id": "none",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
    }
    (folder / "home" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    # The last two are for what the settings don't reach: no proxy listens there.
    nowhere = "http://127.0.0.1:9"
    return {
        "TOTALSEG_HOME_DIR": str(folder / "home"),
        "TOTALSEG_WEIGHTS_PATH": str(folder / "weights"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }


def main() -> None:
    """Run both, compare their masks, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--factor", type=float, default=2.0)
    arguments = parser.parse_args()
    if not PEER.exists():
        raise SystemExit("no .venv-totalseg: make totalsegmentator-peers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scan = folder / "ct.nii.gz"
        if arguments.factor == 1:
            shutil.copy(arguments.image, scan)
            shape = nibabel.load(scan).shape
        else:
            shape = finer(arguments.image, scan, arguments.factor)
        volseg: list[str | Path] = [sys.executable, "-m", "volseg"]
        profile = ("--profile", "totalsegmentator", "-o", folder / "model")
        subprocess.run([*volseg, "model", "import-nnunet", arguments.model, *profile], check=True)
        ours = measured([*volseg, "predict", scan, "-o", folder / "ours", "--model", folder / "model"])
        call: list[str | Path] = [PEER, "-i", scan, "-o", folder / "theirs.nii.gz", "--ml", "--fast", "--device", "cpu"]
        theirs = measured(call, offline(folder, arguments.model))
        found, wanted = labels_in(folder / "ours" / "ct" / "mask.nii.gz"), labels_in(folder / "theirs.nii.gz")
    print(report(shape, {"TotalSegmentator": theirs, "volseg": ours}, found, wanted))


if __name__ == "__main__":
    main()
