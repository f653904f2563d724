"""nnunetv2's own trainer and predictor, run by `.venv-nnunet`'s Python for `benchmarks.training.curves`.

    python -m benchmarks.training._nnunet train FOLD MINUTES MARKS REPORT
    python -m benchmarks.training._nnunet predict MODEL FOLD CHECKPOINT OUTPUT IMAGE ...

Everything is as `nnUNetv2_train -device cpu` has it (plan, network, loss, SGD, augmentation in processes of its own,
deep supervision), apart from the length: the polynomial schedule runs over its thousand epochs by the clock, so that it
ends with the time given. Nothing is spent on the validation after each epoch, on which no weight depends.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # type: ignore[import-not-found]
from nnunetv2.run.run_training import get_trainer_from_args  # type: ignore[import-not-found]
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA  # type: ignore[import-not-found]

DATASET, CONFIGURATION = "4", "3d_fullres"


class Clock:
    """Seconds since it was made, those apart in which it stood still."""

    def __init__(self) -> None:
        self.start, self.still = time.perf_counter(), 0.0

    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.start - self.still


def train(fold: int, minutes: float, marks: list[float], report: Path) -> None:
    """Train, and keep a checkpoint after each of `marks` (minutes) and at the end; `report` says when that was."""
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, fold, device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    points: list[dict[str, Any]] = []
    left = sorted(mark for mark in marks if mark < minutes)
    step, clock = 0, Clock()
    while (seconds := clock.seconds()) < 60 * minutes:
        trainer.lr_scheduler.step(trainer.num_epochs * seconds / (60 * minutes))
        trainer.train_step(next(trainer.dataloader_train))
        step += 1
        if left and clock.seconds() >= 60 * left[0]:
            began = time.perf_counter()
            points.append(_point(clock, step, f"minute_{left.pop(0):g}.pth"))
            trainer.save_checkpoint(str(Path(trainer.output_folder) / points[-1]["checkpoint"]))
            clock.still += time.perf_counter() - began
    points.append(_point(clock, step, "checkpoint_final.pth"))
    trainer.on_train_end()
    plan = trainer.configuration_manager
    document = {
        "model": trainer.output_folder_base,
        "versions": {name: importlib.metadata.version(name) for name in ("nnunetv2", "torch")},
        "threads": torch.get_num_threads(),
        "augmenting_processes": get_allowed_n_proc_DA(),
        "patch": [int(size) for size in plan.patch_size],
        "batch": int(plan.batch_size),
        "features": list(plan.network_arch_init_kwargs["features_per_stage"]),
        "step_s": round(clock.seconds() / step, 4),
        "points": points,
    }
    report.write_text(json.dumps(document, indent=1) + "\n")


def _point(clock: Clock, step: int, checkpoint: str) -> dict[str, Any]:
    return {"minutes": round(clock.seconds() / 60, 3), "steps": step, "checkpoint": checkpoint}


def predict(model: str, fold: int, checkpoint: str, output: Path, images: list[str]) -> None:
    """Masks of some images, as its command makes them: in ``once`` not mirrored, in ``mirrored`` so."""
    names = [Path(image).name.removesuffix("_0000.nii.gz") for image in images]
    for folder, mirror in (("once", False), ("mirrored", True)):
        predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(model, use_folds=(fold,), checkpoint_name=checkpoint)
        (output / folder).mkdir(parents=True, exist_ok=True)
        masks = [str(output / folder / name) for name in names]
        predictor.predict_from_files_sequential([[image] for image in images], masks)


def main() -> None:
    """One of the two."""
    torch.set_num_threads(multiprocessing.cpu_count())
    what, *rest = sys.argv[1:]
    if what == "train":
        fold, minutes, marks, report = rest
        train(int(fold), float(minutes), [float(mark) for mark in marks.split(",") if mark], Path(report))
    else:
        model, fold, checkpoint, output, *images = rest
        predict(model, int(fold), checkpoint, Path(output), images)


if __name__ == "__main__":
    main()
