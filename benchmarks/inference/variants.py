"""One scan and one model with other options: how much faster, in how much memory, and what becomes of the labels.

    .venv/bin/python -m benchmarks.inference.variants --model MODEL --image CT.nii.gz

MODEL is a volseg model folder; `--factor 2` makes the scan finer first, `--labels a,b` adds lines for some labels.
Every line is a process of its own; masks are compared with the first line's, over the labels that the line asks for.
With `--threads` also on one thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._machine import machine
from benchmarks.inference._compare import LARGE, finer, labels_in, measured


def variants(labels: str | None, *, threads: bool) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Options and environment of each line."""
    few = [] if labels is None else ["--labels", labels]
    lines: dict[str, tuple[list[str], dict[str, str]]] = {"default": ([], {})}
    if threads:
        lines["one thread"] = ([], {"OMP_NUM_THREADS": "1"})
    for step in ("0.65", "0.8", "1.0"):
        lines[f"--step {step}"] = (["--step", step], {})
    lines["--coarse-to-fine"] = (["--coarse-to-fine"], {})
    if few:
        lines[" ".join(few)] = (few, {})
        lines[" ".join([*few, "--coarse-to-fine"])] = ([*few, "--coarse-to-fine"], {})
    return lines


def dice(found: Any, wanted: Any, values: set[int]) -> list[float]:
    """Dice of each of the labels that is large enough in the reference."""
    large = [value for value in values if (wanted == value).sum() > LARGE]
    return [
        2 * float(((found == v) & (wanted == v)).sum()) / float((found == v).sum() + (wanted == v).sum()) for v in large
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--factor", type=float, default=1.0)
    parser.add_argument("--labels")
    parser.add_argument("--threads", action="store_true")
    arguments = parser.parse_args()
    print(f"{machine('torch', 'openvino')}\n")
    print("| options | windows | seconds | peak GB | voxels that differ | mean Dice | worst Dice |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        scan = Path(temporary) / "scan.nii.gz"
        finer(arguments.image, scan, arguments.factor)
        reference = None
        for number, (name, (options, environment)) in enumerate(
            variants(arguments.labels, threads=arguments.threads).items()
        ):
            out = Path(temporary) / str(number)
            call = [sys.executable, "-m", "volseg", "predict", scan, "-o", out, "--model", arguments.model, "--no-tta"]
            run = measured([*call, *options], environment)
            result = json.loads((out / "scan" / "result.json").read_text())
            values = {label["value"] for label in result["labels"]}
            found = labels_in(out / "scan" / "mask.nii.gz")
            reference = found if reference is None else reference
            wanted = np.where(np.isin(reference, [*values]), reference, 0)
            scores = dice(found, wanted, values) or [1.0]
            cells = [name, f"{result['windows']}", f"{run.seconds:.1f}", f"{run.largest_gb:.2f}"]
            cells += [f"{(found != wanted).sum():,} of {found.size:,}", f"{np.mean(scores):.4f}", f"{min(scores):.4f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
