"""Engines and precisions: time of a window, of a whole process, memory, and what becomes of the labels.

    .venv/bin/python -m benchmarks.inference.engines --model MODEL --image CT.nii.gz [--factor 2] [--tta]

MODEL is a volseg model folder or a bundled name. Labels are compared with those of torch in fp32. Where the processor
doesn't compute in bf16, that row is computed in fp32 with the weights and the output of every layer rounded to bf16:
it has labels and no times. The floor is the multiplications of the network's convolutions at the speed of a product of
two large matrices.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import volseg
from benchmarks._machine import machine
from benchmarks.inference._compare import LARGE, finer, labels_in, measured
from benchmarks.inference.variants import dice
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.inference.engines import EngineChoice, PrecisionChoice
from volseg.inference.engines.choice import make_engine
from volseg.inference.engines.torch import TorchEngine
from volseg.machine import native_bf16
from volseg.network.unet import UNet

#: Of each timing, so often; the least is taken.
ROUNDS = 5
LINES: tuple[tuple[EngineChoice, PrecisionChoice], ...] = (
    ("torch", "fp32"),
    ("openvino", "fp32"),
    ("torch", "bf16"),
    ("openvino", "bf16"),
)


@dataclass
class Labels:
    """A mask, the windows that it took, and the process that made it."""

    mask: Any
    windows: int
    process: str


def least(work: Callable[[], object]) -> float:
    """Seconds of `work`, after it was done once."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def network(model: Model) -> UNet:
    """The network of the first fold."""
    net = UNet.from_recipe(model.recipe)
    net.load_state_dict(model.folder.weights(next(iter(model.folder.manifest.weights))))
    return net.eval()


def multiplications(net: UNet, x_BCDHW: Tensor) -> int:
    """Of the convolutions up to the last features."""
    counts: list[int] = []

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        per_voxel = layer.get_parameter("weight")[0].numel()
        counts.append((given[0] if isinstance(layer, nn.ConvTranspose3d) else out).numel() * per_voxel)

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        net.decoded(x_BCDHW)
    for hook in hooks:
        hook.remove()
    return sum(counts)


class Rounded(TorchEngine):
    """Torch in fp32 with the weights and every layer's output rounded to bf16."""

    def __init__(self, net: UNet, *, leave_head: bool) -> None:
        super().__init__(net, leave_head=leave_head)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.bfloat16().float()
        for layer in self.network.modules():
            if not list(layer.children()):
                layer.register_forward_hook(lambda _layer, _given, out: out.bfloat16().float())


def rounded(model: Model, scan: Path, options: Options) -> Labels:
    """Labels of a `Rounded` network."""
    segmenter = Segmenter(model, options)
    (usual,) = segmenter.engines
    segmenter.engines = [Rounded(network(model), leave_head=usual.head is not None)]
    prediction = segmenter.segment(volseg.load(scan))
    return Labels(prediction.mask.array, prediction.windows, "| | |")


def predicted(arguments: argparse.Namespace, scan: Path, out: Path, engine: str, precision: str) -> Labels:
    """Labels of the command, and its time and memory."""
    call = [sys.executable, "-m", "volseg", "predict", scan, "-o", out, "--model", arguments.model, "--engine", engine]
    run = measured([*call, "--precision", precision, "--tta" if arguments.tta else "--no-tta"])
    windows = json.loads((out / "scan" / "result.json").read_text())["windows"]
    mask = labels_in(out / "scan" / "mask.nii.gz")
    return Labels(mask, windows, f"{run.seconds:.1f} | {run.cpu_seconds:.1f} | {run.largest_gb:.2f}")


def windows_table(model: Model) -> None:
    """Print the time of a window by engine and threads, and the floor."""
    net, window = network(model), model.recipe.window
    x_BCDHW = torch.randn(1, len(model.recipe.channels), *window, generator=torch.Generator().manual_seed(0))
    work = multiplications(net, x_BCDHW)
    square = torch.randn(2048, 2048)
    most = torch.get_num_threads()
    print(
        f"\nOne window of {' x '.join(map(str, window))}, {work / 1e9:.1f} thousand million multiplications, seconds:\n"
    )
    print("| threads | floor | torch fp32 | openvino fp32 | openvino, first window and compiling |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for threads in sorted({1, most}):
        torch.set_num_threads(threads)
        floor = work * least(lambda: square @ square) / math.pow(2048, 3)
        cells = [f"{threads}", f"{floor:.3f}"]
        start = time.perf_counter()
        for name, precision in LINES[:2]:
            start = time.perf_counter()
            engine = make_engine(net, model.recipe, name, precision, "cpu", leave_head=True)
            engine(x_BCDHW)
            first = time.perf_counter() - start
            cells.append(f"{least(lambda engine=engine: engine(x_BCDHW)):.3f}")  # type: ignore[misc]
        print(f"| {' | '.join([*cells, f'{first:.3f}'])} |", flush=True)
    torch.set_num_threads(most)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--factor", type=float, default=1.0)
    parser.add_argument("--tta", action="store_true")
    arguments = parser.parse_args()
    print(machine("torch", "openvino"))
    model = load_model(arguments.model)
    windows_table(model)
    print(
        "\n| engine | precision | windows | seconds | CPU seconds | peak GB | voxels that agree | worst Dice, label |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    reference = None
    with tempfile.TemporaryDirectory() as temporary:
        scan = Path(temporary) / "scan.nii.gz"
        finer(arguments.image, scan, arguments.factor)
        for name, precision in LINES:
            emulated = precision == "bf16" and not native_bf16()
            if emulated and name == "openvino":
                continue
            if emulated:
                found = rounded(model, scan, Options(mirroring=arguments.tta, engine="torch"))
            else:
                found = predicted(arguments, scan, Path(temporary) / f"{name}-{precision}", name, precision)
            reference = found.mask if reference is None else reference
            names = {label.value: label.name for label in model.recipe.labels}
            large = [value for value in names if (reference == value).sum() > LARGE]
            worst = min(((dice(found.mask, reference, {value})[0], value) for value in large), default=(1.0, 0))
            agree = f"{np.mean(found.mask == reference):.4%} | {worst[0]:.4f} {names.get(worst[1], '')}"
            shown = "rounded in fp32" if emulated else name
            print(f"| {shown} | {precision} | {found.windows} | {found.process} | {agree} |", flush=True)


if __name__ == "__main__":
    main()
