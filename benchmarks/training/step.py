"""One training step of volseg and of nnunetv2, and how much of volseg's isn't the network.

    make nnunet-peers
    .venv/bin/python -m benchmarks.training.step [--steps 5] [--rounds 3] [--threads 2] [--device cuda]

Both train a U-Net of the same stages and channels (instance normalisation, strided convolutions, deep supervision) on
the same windows and batch with Dice and cross-entropy, SGD with Nesterov's momentum and a clipped gradient. nnunetv2's
step is its own `nnUNetTrainer.train_step` with its own loss on its own network; on a CPU it runs in fp32, as it does by
default, and volseg in what it would choose itself. Patches are in memory: neither augments here. Every run is a process
of its own, and the rounds of both alternate. Then volseg's `Trainer.step` with the recipe's sampling and augmentation
is timed in its parts. What was measured goes to `benchmarks/training/results/step_<device>.json`.

The networks aren't equal to the last layer: as in its own plans, nnunetv2's convolutions have biases, and there is one
more supervised output, at the lowest resolution, of weight 0. Both are below a thousandth of the operations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / ".venv-nnunet" / "bin" / "python"
#: Window, batch, channels of each stage, classes with the background.
TASKS: dict[str, tuple[list[int], int, list[int], int]] = {
    "hippocampus": ([40, 56, 40], 1, [16, 32, 64, 96], 3),
    "hippocampus, 2 patches": ([40, 56, 40], 2, [16, 32, 64, 96], 3),
    "CT 128^3": ([128, 128, 128], 1, [16, 32, 64, 128, 160], 14),
}


def recipe_of(task: str, precision: str) -> Any:
    """The task as a recipe of volseg, trained as nnunetv2 does."""
    from volseg.config import Recipe

    window, batch, features, classes = TASKS[task]
    labels = [{"value": value, "name": f"label {value}", "colour": [value, 0, 0]} for value in range(1, classes)]
    training = {
        "batch_size": batch, "optimiser": "sgd", "momentum": 0.99, "learning_rate": 1e-2, "weight_decay": 3e-5,
        "schedule": "polynomial", "warmup_fraction": 0.0, "precision": precision,
    }  # fmt: skip
    return Recipe.model_validate(
        {
            "name": "step", "channels": [{"name": "image", "modalities": ["CT"]}], "labels": labels, "window": window,
            "spacing_mm": [1.0, 1.0, 1.0],
            "network": {"features": features, "downsampling": "strided"}, "training": training,
        }
    )  # fmt: skip


def scan(task: str) -> tuple[Any, Any]:
    """Noise and blocks of each label, a little larger than the window: (C, D, H, W) float32 and (D, H, W) int32."""
    import torch

    window, _, _, classes = TASKS[task]
    shape = [size + 24 for size in window]
    torch.manual_seed(0)
    blocks = torch.randint(0, classes, [size // 8 + 1 for size in shape], dtype=torch.int32)
    for axis, size in enumerate(shape):
        blocks = blocks.repeat_interleave(8, axis).narrow(axis, 0, size)
    return torch.randn([1, *shape]) + blocks, blocks.contiguous()


def volseg_step(task: str, device: str) -> Any:
    """A function of the number of a step: one step without sampling and augmentation."""
    trainer = trainer_of(task, device)
    batch = trainer.batch(0)
    trainer.batch = lambda _: batch
    return lambda step: trainer.step(step, 1000)


def trainer_of(task: str, device: str = "cpu", precision: str = "auto") -> Any:
    """Trainer of volseg on one case in memory."""
    import numpy as np
    import torch

    from volseg.geometry import AxisMap, Geometry
    from volseg.preprocess import Prepared
    from volseg.training.dataset import TrainingCase, some_voxels
    from volseg.training.loop import Trainer
    from volseg.training.processes import Processes
    from volseg.volume import LabelVolume

    recipe = recipe_of(task, precision)
    image, labels = scan(task)
    geometry = Geometry(tuple(labels.shape), np.eye(4))
    reference = LabelVolume(labels.numpy().astype(np.uint8), geometry, recipe.label_table())
    foreground = {int(value): some_voxels(labels == value) for value in labels.unique() if value}
    prepared = Prepared(image, AxisMap.between("RAS", "RAS"), geometry)
    case = TrainingCase("scan", prepared, labels, reference, foreground, ((0.0, 1.0),))
    return Trainer(recipe, [case], [], Path(), lambda *_: None, Processes(torch.device(device)))


def nnunet_step(task: str, device: str) -> Any:
    """The same of nnunetv2."""
    from types import SimpleNamespace

    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet  # type: ignore[import-not-found]
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss  # type: ignore[import-not-found]
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper  # type: ignore[import-not-found]
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss  # type: ignore[import-not-found]
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # type: ignore[import-not-found]

    window, batch, features, classes = TASKS[task]
    stages = len(features)
    strides = [1] + [2] * (stages - 1)
    network = PlainConvUNet(
        1, stages, features, torch.nn.Conv3d, 3, strides, 2, classes, 2, True, torch.nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, torch.nn.LeakyReLU, {"inplace": True}, True,
    ).to(device)  # fmt: skip
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    weights = [0.5**level for level in range(stages - 1)]
    weights[-1] = 0.0
    trainer = SimpleNamespace(
        network=network,
        device=torch.device(device),
        grad_scaler=torch.amp.GradScaler("cuda") if device == "cuda" else None,
        loss=DeepSupervisionWrapper(loss, [weight / sum(weights) for weight in weights]),
        optimizer=torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True),
    )
    image, labels = scan(task)
    inside = tuple(slice(12, 12 + size) for size in window)
    images = torch.stack([image[(slice(None), *inside)]] * batch)
    target = torch.stack([labels[inside][None].float()] * batch)
    targets = [torch.nn.functional.interpolate(target, scale_factor=0.5**level) for level in range(stages - 1)]
    network.train()
    return lambda _: nnUNetTrainer.train_step(trainer, {"data": images, "target": targets})


def measure(kind: str, task: str, steps: int, threads: int, device: str) -> dict[str, Any]:
    """Median seconds of some steps, and the most memory that they add to the process; the first isn't timed.

    On a CPU memory is what the process holds at its peak over what it held with network and batch before the first
    step; on a GPU all that is allocated there at the peak.
    """
    import torch

    torch.set_num_threads(threads)
    step = (volseg_step if kind == "volseg" else nnunet_step)(task, device)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _held_mib("VmRSS")
    step(0)
    walls, processors = [], []
    for number in range(steps):
        wall, processor = time.perf_counter(), time.process_time()
        step(number + 1)
        if device == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _held_mib("VmHWM") - before
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"wall_s": median(walls), "cpu_s": median(processors), "mib": memory, "device": name}


def _held_mib(field: str) -> float:
    """Memory of this process by the system's count: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def feeding(task: str, steps: int, threads: int) -> dict[str, float]:
    """CPU seconds of a step's batch (sampling and augmentation, the mean of many) and of the rest of it."""
    import torch

    torch.set_num_threads(threads)
    trainer = trainer_of(task)
    trainer.step(0, 1000)
    start = time.process_time()
    for number in range(20):
        batch = trainer.batch(number)
    feed = (time.process_time() - start) / 20
    trainer.batch = lambda _: batch
    rest = []
    for number in range(steps):
        start = time.process_time()
        trainer.step(number + 1, 1000)
        rest.append(time.process_time() - start)
    return {"batch_s": feed, "rest_s": median(rest), "share": feed / (feed + median(rest))}


def run(python: Path, *arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [str(python), "-m", "benchmarks.training.step", *arguments]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {made.returncode}")
    result: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return result


def rounds_of(task: str, given: argparse.Namespace) -> dict[str, Any]:
    """All rounds of a task, nnunetv2 and volseg in turn, then where volseg's time goes."""
    options = {"steps": given.steps, "threads": given.threads, "device": given.device}
    common = ["--tasks", task, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    rounds = [
        {
            "nnunetv2": run(PEER, "--only", "nnunet", *common),
            "volseg": run(Path(sys.executable), "--only", "volseg", *common),
        }
        for _ in range(given.rounds)
    ]
    fed = run(Path(sys.executable), "--only", "feeding", *common) if given.device == "cpu" else None
    return {"rounds": rounds, "feeding": fed}


def steps_table(document: dict[str, Any]) -> str:
    """What was measured as markdown: medians over the rounds; the ratio is the median of the rounds' own."""
    from benchmarks.training._results import markdown

    rows = []
    for task, found in document["tasks"].items():
        peer, ours = ([each[tool] for each in found["rounds"]] for tool in ("nnunetv2", "volseg"))
        ratios = sorted(theirs["wall_s"] / own["wall_s"] for theirs, own in zip(peer, ours, strict=True))
        rows.append(
            [
                task,
                *(f"{1 / median(each['wall_s'] for each in tool):.3f}" for tool in (peer, ours)),
                f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                f"{median(p['cpu_s'] / o['cpu_s'] for p, o in zip(peer, ours, strict=True)):.2f}",
                *(f"{median(each['mib'] for each in tool):.0f}" for tool in (peer, ours)),
                "-" if found["feeding"] is None else f"{found['feeding']['share']:.1%}",
            ]
        )
    head = ["", "nnunetv2, steps a second", "volseg", "times faster (rounds)", "by processor time"]
    head += ["nnunetv2, MiB a step", "volseg", "not network"]
    about = (
        f"{document['device']}; {document['machine']}; {document['threads']} threads; {document['steps']} steps in each"
        f" of the rounds; load before {document['load_before']:.1f}."
    )
    return f"{about}\n\n{markdown(head, rows)}"


def main() -> None:
    """Measure each task in rounds, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "training" / "results")
    parser.add_argument("--only", choices=["volseg", "nnunet", "feeding"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        task = given.tasks[0]
        if given.only == "feeding":
            print(json.dumps(feeding(task, given.steps, given.threads)))
        else:
            print(json.dumps(measure(given.only, task, given.steps, given.threads, given.device)))
        return
    if not PEER.exists():
        raise SystemExit("no .venv-nnunet: make nnunet-peers")
    from benchmarks._machine import machine

    load = os.getloadavg()[0]
    tasks = {task: rounds_of(task, given) for task in given.tasks}
    document = {
        "machine": machine("torch", "openvino"),
        "device": tasks[given.tasks[0]]["rounds"][0]["volseg"]["device"],
        "threads": given.threads,
        "steps": given.steps,
        "load_before": round(load, 2),
        "tasks": tasks,
    }
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / f"step_{given.device}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(steps_table(document))


if __name__ == "__main__":
    main()
