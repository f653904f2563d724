"""What the comparisons with other tools share: a finer scan, whole processes measured, masks compared."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

from benchmarks._machine import machine

ROOT = Path(__file__).resolve().parents[2]
#: Labels with fewer voxels aren't compared by Dice.
LARGE = 1000
#: Seconds between two looks at the memory of all processes.
LOOK = 0.2


@dataclass(frozen=True)
class Run:
    """Wall seconds of a command, the peak memory in GB of its largest process and of all at once, and CPU seconds."""

    seconds: float
    largest_gb: float
    together_gb: float
    cpu_seconds: float


def finer(source: Path, target: Path, factor: float) -> tuple[int, ...]:
    """Write a scan with voxels that are `factor` times smaller; return its shape."""
    image = nibabel.load(source)
    values = np.asarray(image.dataobj).astype(np.float32)
    values = ndimage.zoom(values, factor, order=1, grid_mode=True, mode="nearest").round().astype(np.int16)
    affine = image.affine.copy()
    affine[:3, :3] /= factor
    affine[:3, 3] = (image.affine @ [*[(1 / factor - 1) / 2] * 3, 1])[:3]
    nibabel.save(nibabel.Nifti1Image(values, affine), target)
    shape: tuple[int, ...] = values.shape
    return shape


def _processes(pid: int) -> Iterator[int]:
    """A process, its children, and theirs."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            for child in thread.read_text().split():
                yield from _processes(int(child))


def _memory_gb(pid: int) -> float:
    """What a process holds for itself: libraries and files that several may share don't count.

    Counting shared pages in parts would be fairer, and takes the system so long for a large process that it slows it.
    """
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
        return (resident - shared) * resource.getpagesize() / 1e9
    return 0.0


def measured(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command; it must succeed."""
    start = time.perf_counter()
    variables = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    together, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            together.append(sum(map(_memory_gb, _processes(process.pid))))

    watch = threading.Thread(target=look)
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    ended.set()
    watch.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:3]))} ended with {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(seconds, usage.ru_maxrss * 1024 / 1e9, max(together), cpu_seconds)


def labels_in(path: Path) -> Any:
    """The voxels of a mask."""
    return np.asarray(nibabel.load(path).dataobj)


def report(shape: Sequence[int], runs: Mapping[str, Run], found: Any, wanted: Any) -> str:
    """A table of two runs, the other tool's first, and in how far their masks agree."""
    theirs, ours = runs.values()
    rows = [
        f"| {name} | {run.seconds:.1f} | {run.cpu_seconds:.1f} | {run.largest_gb:.2f} | {run.together_gb:.2f} |"
        for name, run in runs.items()
    ]
    dice = [
        2 * ((found == value) & (wanted == value)).sum() / ((found == value).sum() + count)
        for value, count in zip(*np.unique(wanted, return_counts=True), strict=True)
        if value and count > LARGE
    ]
    return "\n".join(
        [
            f"scan {'x'.join(map(str, shape))}, {machine()}",
            "",
            "| | seconds | CPU seconds | peak GB of the largest process | of all processes at once |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            f"| times less | {theirs.seconds / ours.seconds:.1f} | {theirs.cpu_seconds / ours.cpu_seconds:.1f} |"
            f" {theirs.largest_gb / ours.largest_gb:.1f} | {theirs.together_gb / ours.together_gb:.1f} |",
            "",
            f"{(found == wanted).mean():.4%} of voxels agree; worst Dice of the {len(dice)} labels above {LARGE} voxels"
            f": {min(dice, default=1.0):.4f}",
        ]
    )
