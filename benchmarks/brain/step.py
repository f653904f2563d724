"""What a synthetic image costs of a training step: ``python -m benchmarks.brain.step MAPS.csv``.

Processor time of one thread, so that other work on the machine doesn't count: medians over steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks._machine import machine
from volseg.config import load_recipe
from volseg.datasets.cases import load_dataset
from volseg.training.loop import Trainer
from volseg.training.synthesis.maps import map_case

RECIPE = Path(__file__).parents[2] / "pipelines" / "brain.yaml"
STEPS = 8


def main() -> None:
    """Time the batch alone, and whole steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(RECIPE)
    if recipe.training.synthesis is None:
        raise SystemExit(f"{RECIPE}: no synthesis")
    case = map_case(load_dataset(asked.maps)[0], recipe, recipe.training.synthesis)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, [case], [], Path(folder), lambda *_: None)
        trainer.step(0, STEPS + 1)
        images, steps = [], []
        for step in range(1, STEPS + 1):
            start = time.process_time()
            trainer.batch(step)
            middle = time.process_time()
            trainer.step(step, STEPS + 1)
            images.append(middle - start)
            steps.append(time.process_time() - middle)
    image, whole = statistics.median(images), statistics.median(steps)
    print(f"image {image:.3f} s, step {whole:.3f} s of one thread: {100 * image / whole:.1f} %; {machine('torch')}")


if __name__ == "__main__":
    main()
