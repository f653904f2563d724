"""Which intensity each structure has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.config import ContrastConfig, SynthesisConfig

Numbers = npt.NDArray[np.float64]
#: Mean and standard deviation of a background that is nearly black.
BLACK = (10.0, 6.0)


def draw_contrast(config: SynthesisConfig, rng: np.random.Generator) -> ContrastConfig | None:
    """A contrast, as often as its weight says; None: intensities are free."""
    weights = np.array([config.free_weight, *(contrast.weight for contrast in config.contrasts)])
    chosen = int(rng.choice(len(weights), p=weights / weights.sum()))
    return config.contrasts[chosen - 1] if chosen else None


def draw_intensities(config: SynthesisConfig, rng: np.random.Generator) -> Tensor:
    """(2, N) float32 mean and standard deviation of each of `SynthesisConfig.values`."""
    contrast = draw_contrast(config, rng)
    structures = sorted(config.structures, key=lambda structure: structure.value)
    free = _free(max(structure.tissue for structure in structures) + 1, config, rng)
    table = free[:, [structure.tissue for structure in structures]]
    if contrast is not None:
        known = _known(contrast, rng)[:, [structure.kind for structure in structures]]
        table = np.where(np.isnan(known), table, known)
    if structures[0].value == 0 and rng.random() < config.dark_background_probability:
        table[:, 0] = rng.uniform(0, 1, 2) * BLACK
    return torch.from_numpy(table.astype(np.float32))


def _free(tissues: int, config: SynthesisConfig, rng: np.random.Generator) -> Numbers:
    """(2, tissues) means and standard deviations that know of no contrast."""
    return np.stack([rng.uniform(*config.mean_range, tissues), rng.uniform(*config.spread_range, tissues)])


def _known(contrast: ContrastConfig, rng: np.random.Generator) -> Numbers:
    """(2, kinds) means and standard deviations of a contrast; NaN where it doesn't know."""
    priors = np.array([prior or (np.nan,) * 4 for prior in contrast.priors]).T
    drawn = rng.standard_normal((2, priors.shape[1]))
    mean, spread = priors[0] + priors[1] * drawn[0], priors[2] + priors[3] * drawn[1]
    return np.stack([np.clip(mean, 0, None), np.abs(spread)])
