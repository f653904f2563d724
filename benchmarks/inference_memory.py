"""Peak memory and time of segmenting scans of growing length: streamed, against logits of the whole scan.

The network is one convolution of one voxel with weights set by hand: class `c` of 118 wins where the scan's value is
nearest to `c`. It costs little, and its logits fall off around a boundary as a trained network's do, so that what is
measured is all that isn't the network. Each run is a process of its own; the masks of all ways are compared.

Run it with ``python -m benchmarks.inference_memory``: about a minute of processor time, 2 GB.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from benchmarks._machine import machine
from volseg.config import Recipe, recipe_from_dict
from volseg.geometry import Geometry
from volseg.inference.blend import gaussian_weight, weight_sum
from volseg.inference.decide import Labels, Softmax, restore_rows
from volseg.inference.engines.torch import TorchEngine
from volseg.inference.memory import plan_for
from volseg.inference.sliding import Constant, window_values
from volseg.inference.stream import Placement, layout_of, stream
from volseg.machine import resident_bytes
from volseg.network.unet import UNet
from volseg.preprocess import Prepared, prepare
from volseg.volume import Source, Volume

CLASSES = 118
SHAPES = [(122, 101, 256), (122, 101, 1024)]
WAYS = {
    "whole": "logits of the whole scan",
    "overlap": "streamed",
    "file": "streamed, slab in a file",
    "features": "streamed, the last layer at the end",
}


def recipe() -> Recipe:
    """A recipe at half the scan's resolution, its network a single convolution."""
    labels = [{"value": value, "name": f"label {value}", "colour": [value, 0, 0]} for value in range(1, CLASSES)]
    point = {"features": [1], "kernels": [[1, 1, 1]], "convolutions": 1, "normalisation": "none"}
    return recipe_from_dict(
        {
            "name": "points",
            "channels": [{"name": "CT", "modalities": ["CT"]}],
            "labels": labels,
            "spacing_mm": [3, 3, 3],
            "window": [32, 32, 32],
            "intensity": {"scheme": "none"},
            "network": {**point, "deep_supervision": False},
        },
        "benchmark",
    )


def engine(task: Recipe, *, leave_head: bool) -> TorchEngine:
    """Logits ``c x - c * c / 2``: the upper envelope of these lines changes halfway between whole numbers."""
    network = UNet.from_recipe(task)
    c = torch.arange(CLASSES, dtype=torch.float32)
    network.load_state_dict(
        {
            "encoder.0.blocks.0.0.weight": torch.ones(1, 1, 1, 1, 1),
            "encoder.0.blocks.0.0.bias": torch.zeros(1),
            "outputs.0.weight": c.view(-1, 1, 1, 1, 1),
            "outputs.0.bias": -c * c / 2,
        }
    )
    return TorchEngine(network, leave_head=leave_head)


def volume(shape: tuple[int, int, int]) -> Volume:
    """A smooth scan with values from 0 to 117, which is 0 in half of its voxels, as CT is outside the body."""
    coarse = np.random.default_rng(0).normal(size=[size // 14 for size in shape]).astype(np.float32)
    zoomed = ndimage.zoom(coarse, [size / (size // 14) for size in shape], order=1, output=np.float32)
    return Volume(np.clip(zoomed * 50, 0, CLASSES - 1).astype(np.int16), Geometry(shape, np.diag([1.5, 1.5, 1.5, 1])))


def whole(prepared: Prepared, task: Recipe, network: TorchEngine) -> tuple[Labels, dict[str, float]]:
    """The old way: sums of logits of the whole scan, their means, then the labels."""
    start = time.perf_counter()
    layout = layout_of(prepared, task)
    total = torch.zeros((*layout.padded, CLASSES))
    weight = gaussian_weight(task.window)
    for row in layout.windows:
        for place, _, logits in window_values(prepared.tensor_CDHW, [network], row, [[]], Constant([network])):
            total[place] += logits * weight[..., None]
    summed = time.perf_counter()
    torch.set_num_threads(1)  # as streaming restores
    sums = [weight_sum(layout.padded[axis], layout.window[axis], layout.step) for axis in layout.turned]
    weights = (sums[0][:, None, None] * (sums[1][:, None] * sums[2])).float()
    mean = total.permute(*layout.turned, 3) / weights[..., None]
    array = np.zeros(prepared.grid.shape, np.uint8)
    target = prepared.axes.apply(array).transpose(layout.turned)
    for block, rows in enumerate(layout.needed):
        values = mean[rows].contiguous()
        restore_rows(
            values,
            layout.axes,
            block,
            Softmax(torch.ones(CLASSES, dtype=torch.bool)),
            np.arange(CLASSES, dtype=np.uint8),
            target,
        )
    return array, {"network": summed - start, "restore": time.perf_counter() - summed}


def run(way: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """One scan, one way: seconds and MB."""
    task, scan = recipe(), volume(shape)
    network = engine(task, leave_head=way == "features")
    network(torch.zeros(2, 1, 8, 8, 8))
    before = resident_bytes()
    start = time.perf_counter()
    prepared = prepare(scan, task)
    middle = time.perf_counter()
    if way == "whole":
        array, seconds = whole(prepared, task, network)
        planned = 0
    else:
        placement = Placement(in_file=way == "file", overlap=way != "file")
        planned = plan_for(scan, task, [network], placement, before).total
        streamed = stream(prepared, [network], task, Source(), placement=placement)
        array, seconds = streamed.mask.array, streamed.seconds
    end = time.perf_counter()
    return {
        "prepare": middle - start,
        **seconds,
        "total": end - start,
        "cpu": time.process_time(),
        "before": before / 1e6,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "planned": planned / 1e6,
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def main() -> None:
    """Print the table."""
    print(f"{machine('torch', 'numpy')}, {torch.get_num_threads()} threads")
    print(f"{CLASSES} classes, window 32 x 32 x 32, model at half the resolution\n")
    titles = ("prepare s", "network s", "restore s", "all s", "CPU s", "peak MB", "before MB", "planned MB")
    print(f"| scan | way | {' | '.join(titles)} |")
    print(f"| --- | --- |{' ---: |' * len(titles)}")
    for shape in SHAPES:
        masks = set()
        for way, title in WAYS.items():
            call = [sys.executable, "-m", "benchmarks.inference_memory", way, *map(str, shape)]
            done = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
            masks.add(done["sha256"])
            cells = [" x ".join(map(str, shape)), title]
            cells += [f"{done[stage]:.1f}" for stage in ("prepare", "network", "restore", "total", "cpu")]
            cells += [f"{done[size]:.0f}" for size in ("peak", "before", "planned")]
            print(f"| {' | '.join(cells)} |", flush=True)
        assert len(masks) == 1, f"{shape}: the ways give different masks"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        i, j, k = map(int, sys.argv[2:])
        print(json.dumps(run(sys.argv[1], (i, j, k))))
    else:
        main()
