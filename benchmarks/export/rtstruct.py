"""RTSTRUCT of 118 labels: volseg and rt-utils on the same scan and mask, and what is left of the mask.

``python -m benchmarks.export.rtstruct [--slices N] [--work FOLDER]`` after ``bash .ci/readers``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._machine import machine
from benchmarks.export._scan import LABELS, segmented, write_ct
from volseg.export.dicom_rtstruct import write
from volseg.labels.rtstruct import read_rtstruct
from volseg.volume import Volume

ROOT = Path(__file__).resolve().parents[2]


def measure(work: Path, slices: int) -> None:
    """Print the table."""
    write_ct(work / "series", (512, 512, slices))
    mask = segmented(work / "series")
    start = time.perf_counter()
    write(mask, work / "volseg.dcm")
    ours = time.perf_counter() - start
    image = Volume(np.zeros(mask.geometry.shape, np.int16), mask.geometry, mask.source)
    wrong = int(np.count_nonzero(read_rtstruct(work / "volseg.dcm", image).array != mask.array))
    np.save(work / "mask.npy", mask.array.transpose(1, 0, 2))
    program = Path(__file__).with_name("programs") / "rt_utils_write.py"
    command: list[str | Path] = [
        ROOT / ".venv-readers/bin/python",
        program,
        work / "series",
        work / "mask.npy",
        str(LABELS),
    ]
    run = subprocess.run([*command, work / "rt_utils.dcm"], check=True, capture_output=True, text=True)
    theirs = json.loads(run.stdout.splitlines()[-1])
    print(machine("pydicom"))
    print(f"{LABELS} labels, 512 x 512 x {slices}, {np.count_nonzero(mask.array)} voxels")
    print("| | seconds | MB | voxels wrong when read back by itself |")
    print("| --- | --- | --- | --- |")
    print(f"| volseg | {ours:.1f} | {(work / 'volseg.dcm').stat().st_size / 1e6:.1f} | {wrong} |")
    size = (work / "rt_utils.dcm").stat().st_size / 1e6
    print(f"| rt-utils 1.2.7 | {theirs['write']:.1f} | {size:.1f} | {theirs['wrong_voxels']} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.slices)
