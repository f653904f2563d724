"""The learning rate of each step."""

from __future__ import annotations

import math

from volseg.config import TrainingConfig

#: One-cycle: the largest rate over the first, and the first over the last, as torch has them.
RISE, FALL = 25.0, 1e4


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """Learning rate of step `step` (from 0): a linear rise, then the schedule down to 0.

    Cosine: Loshchilov & Hutter, arXiv:1608.03983, eq. 5, without restarts. Polynomial: nnU-Net's, power 0.9. One-cycle:
    Smith & Topin, arXiv:1708.07120, with half cosines for lines and a constant momentum.
    """
    warmup = round(config.warmup_fraction * total)
    if config.schedule == "one_cycle":
        return config.learning_rate * _one_cycle(step, warmup, total)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    match config.schedule:
        case "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        case "polynomial":
            return config.learning_rate * float((1 - done) ** 0.9)
        case "constant":
            return config.learning_rate


def _one_cycle(step: int, warmup: int, total: int) -> float:
    """Share of the largest rate: from 1/25 at the first step to 1 at step `warmup` - 1, and far down at the last."""
    top = max(0, warmup - 1)
    if step < top:
        return _half_cosine(1 / RISE, 1.0, step / top)
    return _half_cosine(1.0, 1 / (RISE * FALL), (step - top) / max(1, total - 1 - top))


def _half_cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))
