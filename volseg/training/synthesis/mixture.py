"""Synthetic patches and real ones, mixed by a share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from volseg.config import Recipe, SynthesisConfig
from volseg.training.augment import Augmentation
from volseg.training.dataset import TrainingCase
from volseg.training.sampling import Place, Sampler
from volseg.training.synthesis.image import Synthesis
from volseg.training.synthesis.label_map import LabelMap


class MixedSampler:
    """Places in label maps, and in images as often as the recipe says.

    Parameters
    ----------
    cases
        All; those without a label map are real alone, and those whose image is made are synthetic alone.
    recipe
        Window, and how places are chosen.
    share
        Share of places in label maps.
    """

    def __init__(self, cases: Sequence[TrainingCase], recipe: Recipe, share: float) -> None:
        maps = [case.label_map for case in cases if case.label_map is not None]
        real = [case for case in cases if case.has_image]
        self.synthetic, self.real = Sampler(maps, recipe), Sampler(real, recipe)
        self.share = 1.0 if not real else 0.0 if not maps else share

    def __call__(self, rng: np.random.Generator) -> Place:
        """Next place."""
        return (self.synthetic if rng.random() < self.share else self.real)(rng)


class MixedPatches:
    """Patches of such places.

    Parameters
    ----------
    recipe, config
        Recipe and ranges, as for `Synthesis`.
    """

    def __init__(self, recipe: Recipe, config: SynthesisConfig) -> None:
        self.synthetic, self.real = Synthesis(recipe, config), Augmentation(recipe)

    def __call__(self, place: Place, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Image and labels, as `Augmentation` gives them."""
        return self.synthetic(place, rng) if isinstance(place.case, LabelMap) else self.real(place, rng)
