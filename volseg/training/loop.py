"""The training loop.

Every random choice is a function of the recipe's seed, the number of the step and that of the patch in it, so a resumed
run goes on as if it had never stopped, and several processes take the patches that one would with their batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volseg.config import Recipe, recipe_from_dict
from volseg.errors import TrainingError
from volseg.evaluation.overlap import dice_per_label
from volseg.inference import stream
from volseg.inference.engines.torch import TorchEngine
from volseg.machine import native_bf16
from volseg.network.unet import UNet
from volseg.training.augment import Augmentation
from volseg.training.checkpoint import (
    BEST,
    LAST,
    MovingAverage,
    Progress,
    load_checkpoint,
    save_checkpoint,
    write_progress,
)
from volseg.training.curves import draw_curves
from volseg.training.dataset import TrainingCase
from volseg.training.loss import SegmentationLoss
from volseg.training.optimiser import build_optimiser
from volseg.training.precision import AUTOCAST, Precision, choose_precision
from volseg.training.processes import ALONE, Processes
from volseg.training.sampling import Place, Sampler
from volseg.training.schedule import learning_rate
from volseg.training.synthesis.mixture import MixedPatches, MixedSampler

Report = Callable[[Progress, dict[str, Any]], None]

#: Steps that are timed, after two that aren't, to turn minutes into a number of steps.
TIMED_STEPS = 8
#: Share of a time budget left unplanned: this machine is never quite as fast as it was when it was timed.
SPARE = 0.04
#: Progress is reported this many times in a run.
REPORTS = 100
#: Checkpoint, table and curves are written at validations, at the end, and else at reports this many seconds apart: a
#: picture takes as long as several steps.
KEEP_EVERY_S = 20.0


class Trainer:
    """One model: trained on some cases, validated on others.

    Parameters
    ----------
    recipe
        Recipe to train.
    training, validation
        Prepared cases; without any of the latter the last weights are the best ones.
    folder
        Folder for checkpoints, ``progress.csv`` and ``curves.png``.
    report
        A function that is called after each report interval and each validation.
    processes
        Processes that train the model together, each with a `Trainer`, and the device of this one.

    Raises
    ------
    UsageError
        The recipe's precision isn't one of the device's.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Sequence[TrainingCase],
        validation: Sequence[TrainingCase],
        folder: Path,
        report: Report,
        processes: Processes = ALONE,
    ) -> None:
        torch.manual_seed(recipe.training.seed)
        self.recipe, self.config = recipe, recipe.training
        self.training, self.validation = training, validation
        self.folder, self.report = folder, report
        self.processes, self.device = processes, processes.device
        network = UNet.from_recipe(recipe).to(self.device)
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimiser = build_optimiser(self.network, self.config)
        self.average = MovingAverage(self.network.state_dict(), self.config.ema_decay)
        self.loss = SegmentationLoss(recipe, processes).to(self.device)
        self.sample: Callable[[np.random.Generator], Place] = Sampler(training, recipe)
        self.augment: Callable[[Place, np.random.Generator], tuple[Tensor, Tensor]] = Augmentation(recipe)
        if (synthesis := self.config.synthesis) is not None:
            self.sample = MixedSampler(training, recipe, synthesis.share)
            self.augment = MixedPatches(recipe, synthesis)
        self.precision: Precision = choose_precision(self.config.precision, self.device.type, native_bf16=native_bf16())
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.progress = Progress()

    @cached_property
    def parallel(self) -> nn.Module:
        """What gives the network's supervised outputs; made at the first step, when it is settled what is frozen."""
        return self.processes.parallel(self.network)

    def _places(self, step: int, patches: Iterable[int]) -> list[tuple[Place, np.random.Generator]]:
        """Where patches of a step are taken, by their numbers in it, and the generators that go on to change them."""
        generators = [np.random.default_rng([self.config.seed, step, patch]) for patch in patches]
        return [(self.sample(rng), rng) for rng in generators]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images and labels of this process's patches of a step, a function of the seed and the patches' numbers alone.

        Each of the step's accumulated batches has the patches of the first process, then those of the second.
        """
        size, each = self.config.batch_size, self.config.batch_size * self.processes.count
        first = self.processes.index * size
        parts = range(self.config.accumulated_batches)
        own = [part * each + first + number for part in parts for number in range(size)]
        patches = [self.augment(place, rng) for place, rng in self._places(step, own)]
        images, labels = (torch.stack(part) for part in zip(*patches, strict=True))
        return images.contiguous(memory_format=torch.channels_last_3d), labels

    def step(self, step: int, total: int) -> float:
        """One optimiser step; returns the loss."""
        images, labels = map(self._moved, self.batch(step))
        # Dropout of each process is its own.
        torch.manual_seed(self.config.seed * 1_000_003 + step + (self.processes.index << 40))
        rate = learning_rate(step, total, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        self.optimiser.zero_grad()
        parts = self.config.accumulated_batches
        value = sum(map(self._backward, images.chunk(parts), labels.chunk(parts))) / parts
        self.scaler.unscale_(self.optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip))
        # In fp16 a scaled gradient overflows now and then: the scaler leaves that step out, and scales less.
        overflows = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if not (math.isfinite(value) and (math.isfinite(norm) or overflows)):
            raise self._not_finite(step, value, norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.network.state_dict())
        return value

    def _moved(self, tensor: Tensor) -> Tensor:
        """A batch's tensor on the device; from pinned memory a GPU takes it while this process goes on."""
        on_gpu = self.device.type == "cuda"
        return (tensor.pin_memory() if on_gpu else tensor).to(self.device, non_blocking=on_gpu)

    def _not_finite(self, step: int, value: float, norm: float) -> TrainingError:
        """A gradient that isn't finite would spoil the weights, and the next checkpoint with them."""
        kept = self.folder / LAST
        left = f"the last good checkpoint is {kept}" if kept.exists() else "there is no checkpoint yet"
        gradient = f" and its gradient {norm}" if math.isfinite(value) else ""
        patches = self.config.batch_size * self.config.accumulated_batches * self.processes.count
        names = [place.case.name for place, _ in self._places(step, range(patches))]
        return TrainingError(
            f"the loss is {value}{gradient} at step {step}, on patches of {', '.join(names)}; {left};"
            f" a learning rate below {self.config.learning_rate:g} may help"
        )

    def _backward(self, images: Tensor, labels: Tensor) -> float:
        """Loss of one batch; its share of the step's gradient is added to what is there."""
        with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
            outputs = self.parallel(images)
        loss: Tensor = self.loss(outputs, labels)
        torch.autograd.backward(self.scaler.scale(loss / self.config.accumulated_batches))
        return float(loss.detach())

    def engine(self, weights: Mapping[str, Tensor] | None = None) -> TorchEngine:
        """The network with the averaged weights, or with others, as prediction runs it."""
        network = UNet.from_recipe(self.recipe)
        network.load_state_dict(dict(self.average.state if weights is None else weights))
        return TorchEngine(network, "bf16" if self.precision == "bf16" else "fp32", self.device.type)

    def validate(self) -> dict[str, float | None]:
        """Mean Dice of each label over the held-out cases on their own grids, and the mean of these as ``dice``.

        Predicted with the averaged weights and the same sliding window as in inference. A case that holds a label
        neither in the reference nor in the prediction doesn't count for it; None where no case does. Each process
        predicts its share of the cases.
        """
        engine = self.engine()
        values = [label.value for label in self.recipe.labels]
        own: list[list[float | None]] = []
        with self.processes.together():
            for case in self.processes.share(self.validation):
                predicted = stream(case.prepared, [engine], self.recipe, case.reference.source).mask
                judged = predicted.array if case.ignored is None else np.where(case.ignored, 0, predicted.array)
                own.append(dice_per_label(judged, case.reference.array, values))
        scores = self.processes.joined(own)
        result: dict[str, float | None] = {}
        for label, column in zip(self.recipe.labels, zip(*scores, strict=True), strict=True):
            known = [score for score in column if score is not None]
            result[f"dice {label.name}"] = sum(known) / len(known) if known else None
        means = [score for score in result.values() if score is not None]
        return {"dice": sum(means) / len(means) if means else None, **result}

    def plan_steps(self, seconds: float) -> int:
        """Number of steps that fit into `seconds`, from a few that the main process times and that are then undone."""
        network, average = copy.deepcopy(self.network.state_dict()), copy.deepcopy(self.average)
        optimiser, scaler = copy.deepcopy(self.optimiser.state_dict()), self.scaler.state_dict()
        begin = start = time.perf_counter()
        for step in range(TIMED_STEPS + 2):
            if step == 2:
                start = time.perf_counter()
            self.step(step, 10**6)
        each = (time.perf_counter() - start) / TIMED_STEPS
        validations = 0.0
        if self.validation:
            start = time.perf_counter()
            self.validate()
            validations = (time.perf_counter() - start) * self.config.validations
        self.network.load_state_dict(network)
        self.optimiser.load_state_dict(optimiser)
        self.scaler.load_state_dict(scaler)
        self.average = average
        left = seconds * (1 - SPARE) - (time.perf_counter() - begin) - validations
        return self.processes.from_main(max(1, int(left / each)))

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": self.processes.count,
            "progress": vars(self.progress),
            "recipe": self.recipe.model_dump(mode="json"),
        }

    def resume(self) -> None:
        """Go on from the last checkpoint of the folder."""
        path = self.folder / LAST
        state = load_checkpoint(path)
        # Read as a recipe: one of an earlier version lacks fields that have come since.
        if recipe_from_dict(state["recipe"], str(path)) != self.recipe:
            raise TrainingError(f"{path}: was trained with another recipe; go on with that one")
        if (count := state.get("processes", 1)) != self.processes.count:
            raise TrainingError(
                f"{path}: was trained by {count} processes, and these are {self.processes.count}: a step's batch is"
                f" another; go on with {count}"
            )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.average.state = {name: value.to(self.device) for name, value in state["average"].items()}
        self.average.updates = state["updates"]
        self.progress = Progress(**state["progress"])

    def run(self, total: int) -> Progress:
        """Train up to step `total` (that of the checkpoint where the run was resumed)."""
        progress = self.progress
        progress.total = progress.total or total
        started = time.perf_counter() - (progress.history[-1]["seconds"] if progress.history else 0.0)
        report_every = max(1, progress.total // REPORTS)
        validate_at = {
            math.ceil(progress.total * (number + 1) / self.config.validations)
            for number in range(self.config.validations)
        }
        losses: list[float] = []
        kept = time.perf_counter()
        while progress.step < progress.total and not self._exhausted():
            losses.append(self.step(progress.step, progress.total))
            progress.step += 1
            validates = bool(self.validation) and progress.step in validate_at
            if not (validates or progress.step % report_every == 0 or progress.step == progress.total):
                continue
            row = self._row(sum(losses) / len(losses), validates)
            row["seconds"] = round(time.perf_counter() - started, 1)
            losses.clear()
            progress.history.append(row)
            with self.processes.together():
                now = time.perf_counter()
                better = self._note_best(row)
                if validates or progress.step == progress.total or now - kept >= KEEP_EVERY_S:
                    self._keep(better)
                    kept = now
                self.report(progress, row)
        return progress

    def _row(self, loss: float, validates: bool) -> dict[str, Any]:
        progress = self.progress
        scores: dict[str, float | None] = {"dice": None, **{f"dice {label.name}": None for label in self.recipe.labels}}
        if validates:
            scores = self.validate()
        rate = learning_rate(progress.step - 1, progress.total, self.config)
        return {"step": progress.step, "seconds": 0.0, "loss": loss, "learning_rate": rate, **scores}

    def _note_best(self, row: dict[str, Any]) -> bool:
        """Whether no earlier validation was as good."""
        progress, score = self.progress, row["dice"]
        better = score is not None and (progress.best is None or score > progress.best)
        if better:
            progress.best, progress.best_step = score, progress.step
        return better

    def _keep(self, better: bool) -> None:
        progress = self.progress
        if not self.processes.main:
            return
        if better:
            # First: were the last one to name a best one that a kill kept from the disk, a resumed run would miss it.
            save_checkpoint(self.folder / BEST, self.state())
        save_checkpoint(self.folder / LAST, self.state())
        write_progress(self.folder / "progress.csv", progress.history)
        draw_curves(self.folder / "curves.png", progress.history, f"{self.recipe.name} {self.folder.name}")

    def _exhausted(self) -> bool:
        """Whether `patience` validations have passed without a better one."""
        if self.config.patience is None:
            return False
        validated = [row["step"] for row in self.progress.history if row["dice"] is not None]
        later = [step for step in validated if step > self.progress.best_step]
        return len(later) >= self.config.patience
