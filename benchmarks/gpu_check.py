"""Does volseg compute on this machine's GPU what it computes on the CPU, and how fast? Below eight minutes.

    make gpu-check        # or: .venv/bin/python -m benchmarks.gpu_check [--device cuda]

Prediction of the sample crops and of a larger scan against the CPU (labels, time, memory); training steps in fp32, bf16
and fp16, compiled and not, against those of the CPU; a run under torchrun with one process against one without; and,
where `make nnunet-peers` was run, a training step of nnunetv2. Prints a table a part, and exits with 1 where anything
disagrees. Without a GPU it says so and exits with 0. `--device cpu` tries the script itself, in fp32.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

import volseg
from benchmarks._machine import machine
from benchmarks.training.step import PEER, ROOT, trainer_of
from volseg.config import load_recipe
from volseg.geometry import Geometry
from volseg.training.loop import Trainer
from volseg.volume import Volume

Row = tuple[object, ...]

#: Least Dice of a label against the CPU's mask. A GPU multiplies fp32 with fewer digits where it convolves (TF32).
SAME_LABELS = {"fp32": 0.995, "bf16": 0.98}
#: Largest relative difference of the first steps' losses from the CPU's.
SAME_LOSS = {"fp32": 0.005, "bf16": 0.03, "fp16": 0.03}
#: What each device is tried in. In fp16 a processor doesn't train, and nothing predicts.
PREDICTED = {"cpu": ("fp32",), "cuda": ("fp32", "bf16")}
TRAINED = {"cpu": ("fp32",), "cuda": ("fp32", "bf16", "fp16")}
STEPS, COMPARED = 12, 3
TASK = "hippocampus"
CRASHED = math.inf


def table(title: str, head: Sequence[str], rows: Sequence[Row]) -> bool:
    """Print a table whose last column is a judgement; returns whether all hold."""
    print(f"\n## {title}\n\n| {' | '.join(head)} | agrees |\n|{' --- |' * (len(head) + 1)}")
    for *cells, good in rows:
        shown = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
        print(f"| {' | '.join(shown)} | {'yes' if good else '**no**'} |", flush=True)
    return all(bool(row[-1]) for row in rows)


def scans() -> Iterator[tuple[str, Volume]]:
    """Three sample crops, and one of them repeated."""
    paths = sorted((ROOT / "sample_data" / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:3]
    for path in paths:
        yield path.name.removesuffix(".nii.gz"), volseg.load(path)
    crop = volseg.load(paths[0])
    tiled = np.tile(crop.array, (2, 2, 2))
    yield "8 crops", Volume(tiled, Geometry(tiled.shape, crop.geometry.affine), crop.source)


def worst_dice(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Smallest Dice of a label that either mask has."""
    values = [value for value in np.union1d(first, second) if value]
    both = [(first == value, second == value) for value in values]
    return min((2.0 * float((a & b).sum()) / float(a.sum() + b.sum()) for a, b in both), default=1.0)


def timed_mask(model: volseg.Model, volume: Volume, device: str, precision: Any) -> tuple[npt.NDArray[Any], float]:
    """A mask, and the seconds that it took."""
    start = time.perf_counter()
    mask = model.predict(volume, engine="torch", precision=precision, device=device)
    return mask.array, time.perf_counter() - start


def predictions(device: str) -> bool:
    """Masks of the device against the CPU's."""
    model, rows = volseg.load_model("hippocampus"), []
    first = next(scans())[1]
    for precision in PREDICTED[device]:  # what a device does once isn't timed
        timed_mask(model, first, device, precision)
    for name, volume in scans():
        expected, cpu_seconds = timed_mask(model, volume, "cpu", "fp32")
        for precision in PREDICTED[device]:
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            found, seconds = timed_mask(model, volume, device, precision)
            peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0
            dice, same = worst_dice(found, expected), float((found == expected).mean())
            rows.append((name, precision, same, dice, cpu_seconds, seconds, peak, dice >= SAME_LABELS[precision]))
    head = ("scan", "precision", "voxels as on the CPU", "worst Dice", "CPU s", f"{device} s", "MiB of the GPU")
    return table("Prediction", head, rows)


def losses(device: str, precision: str, compiled: bool) -> tuple[list[float], float]:
    """Loss of each step on the same patches, and the seconds of a step; a run that crashes has none."""
    trainer: Trainer = trainer_of(TASK, device, precision)
    batch = trainer.batch(0)
    trainer.batch = lambda _: batch  # type: ignore[assignment, method-assign]
    if compiled:
        trainer.parallel = torch.compile(trainer.parallel)  # type: ignore[assignment]
    values, start = [], 0.0
    for step in range(STEPS):
        if step == STEPS // 2:
            start = time.perf_counter()
        values.append(trainer.step(step, 1000))
    return values, (time.perf_counter() - start) / (STEPS - STEPS // 2)


def trainings(device: str) -> bool:
    """Losses of the device against the CPU's in fp32."""
    expected, seconds = losses("cpu", "fp32", compiled=False)
    rows: list[Row] = [("cpu", "fp32", "", expected[0], expected[-1], 0.0, seconds, expected[-1] < expected[0])]
    for precision in TRAINED[device]:
        for compiled in (False, True) if device == "cuda" else (False,):
            how = "compiled" if compiled else ""
            try:
                found, seconds = losses(device, precision, compiled)
            except Exception as error:
                rows.append((device, precision, f"{how} {type(error).__name__}: {error}"[:200], *[""] * 4, False))
                continue
            pairs = zip(found[:COMPARED], expected[:COMPARED], strict=True)
            off = max(abs(ours / theirs - 1) for ours, theirs in pairs)
            good = off <= SAME_LOSS[precision] and found[-1] < found[0]
            rows.append((device, precision, how, found[0], found[-1], off, seconds, good))
    head = ("device", "precision", "", "first loss", "last loss", f"off in {COMPARED} steps", "seconds a step")
    return table(f"Training steps ({TASK})", head, rows)


def run_losses(folder: Path, device: str, launcher: Sequence[str]) -> list[float]:
    """Losses of a whole run of the command, started by `launcher`."""
    run = folder / ("joined" if launcher else "alone")
    command = [sys.executable, *launcher, "-m", "volseg", "train", str(folder / "recipe.yaml")]
    given = ["--data", str(ROOT / "sample_data" / "hippocampus"), "-o", str(run), "--fold", "0", "--steps", "6"]
    done = subprocess.run(
        [*command, *given, "--device", device],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return []
    with (run / "fold_0" / "progress.csv").open(newline="", encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def joined(device: str) -> bool:
    """A run of one process that torchrun joins to none, against one that nobody launched."""
    recipe = load_recipe(ROOT / "pipelines" / "hippocampus.yaml").model_dump(mode="json")
    recipe["training"] |= {"held_out": [], "validations": 1, "precision": "fp32", "batch_size": 1}
    recipe["network"]["features"] = [8] * len(recipe["network"]["features"])  # launching is what is tried
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        alone = run_losses(folder, device, [])
        together = run_losses(folder, device, ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"])
    same = bool(alone) and len(alone) == len(together)
    off = max((abs(a / b - 1) for a, b in zip(alone, together, strict=True)), default=CRASHED) if same else CRASHED
    head = ("steps of each", "steps of torchrun's", "losses off by")
    return table("One process under torchrun", head, [(len(alone), len(together), off, off <= SAME_LOSS["fp32"])])


def peers(device: str) -> bool:
    """A training step of nnunetv2 beside volseg's, where it is installed."""
    if not PEER.exists():
        print("\nnnunetv2 isn't there (make nnunet-peers): its training step isn't measured")
        return True
    command = [sys.executable, "-m", "benchmarks.training.step", "--rounds", "1", "--device", device]
    print("\n## A training step beside nnunetv2's\n", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False, timeout=150).returncode == 0


def main() -> int:
    """Run every part; the exit code is 1 where one disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        print("this machine has no GPU that torch can use: nothing was checked")
        return 0
    print(machine("torch"), torch.cuda.get_device_name() if device == "cuda" else "no GPU", sep=", ")
    start = time.perf_counter()
    held = [part(device) for part in (predictions, trainings, joined, peers)]
    print(f"\n{'everything agrees' if all(held) else 'something disagrees'}, after {time.perf_counter() - start:.0f} s")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
