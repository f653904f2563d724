"""Scans larger than a computer's memory could hold the probabilities of: seconds, memory, and whether a bound is kept.

    .venv/bin/python -m benchmarks.inference.large_scans --model MODEL --image CT.nii.gz

MODEL is a volseg model folder whose grid is 3 mm. The scan is resized to 488x404x448 at 0.75 mm, and to 512x512x800 at
0.75 x 0.75 x 1 mm with a bound of 4 GB and the model's grid set to 1.5 mm (eight times as many windows as the model was
made for: labels mean nothing there, time and memory do).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from benchmarks._machine import machine
from benchmarks.inference._compare import measured


def resized(source: Path, target: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    """Write a scan with so many voxels of such a size; its values are interpolated."""
    image = nibabel.load(source)
    factors = [new / old for new, old in zip(shape, image.shape, strict=True)]
    values = ndimage.zoom(np.asarray(image.dataobj, np.float32), factors, order=1, grid_mode=True, mode="nearest")
    signs = np.sign(np.diag(image.affine)[:3])
    nibabel.save(nibabel.Nifti1Image(values.round().astype(np.int16), np.diag([*signs * spacing_mm, 1.0])), target)


def on_grid_of(model: Path, target: Path, spacing_mm: float) -> Path:
    """A copy of a model whose grid is another."""
    shutil.copytree(model, target)
    manifest = json.loads((target / "model.json").read_text())
    manifest["recipe"]["spacing_mm"] = [spacing_mm] * 3
    (target / "model.json").write_text(json.dumps(manifest))
    return target


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    arguments = parser.parse_args()
    print(f"{machine('torch', 'openvino')}\n")
    print("| scan | model's grid | bound | windows | seconds | peak GB | seconds of each stage |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fine = on_grid_of(arguments.model, folder / "model", 1.5)
        rows = (
            ((488, 404, 448), (0.75, 0.75, 0.75), arguments.model, 3.0, None),
            ((512, 512, 800), (0.75, 0.75, 1.0), fine, 1.5, "4GB"),
        )
        for shape, spacing_mm, model, grid_mm, bound in rows:
            scan = folder / "scan.nii.gz"
            resized(arguments.image, scan, shape, spacing_mm)
            options = ["--no-tta", *(["--memory", bound] if bound else [])]
            call = [sys.executable, "-m", "volseg", "predict", scan, "-o", folder / "out", "--model", model]
            run = measured([*call, *options])
            result = json.loads((folder / "out" / "scan" / "result.json").read_text())
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result["seconds"].items())
            cells = ["x".join(map(str, shape)), f"{grid_mm:g} mm", bound or "none", f"{result['windows']}"]
            cells += [f"{run.seconds:.1f}", f"{run.largest_gb:.2f}", stages]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
