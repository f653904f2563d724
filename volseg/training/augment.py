"""From a place in a case to a patch, with the random changes that the recipe asks for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from volseg.config import Recipe
from volseg.training.dataset import TrainingCase
from volseg.training.intensity import change_intensity
from volseg.training.sampling import Place
from volseg.training.warp import draw_warp, warped


class Augmentation:
    """Patches, each a function of a place and a generator's state.

    Parameters
    ----------
    recipe
        Recipe, for window, spacing, probabilities and ranges.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.config, self.window = recipe.training.augmentation, recipe.window
        self.spacing_mm, self.side_axis = recipe.spacing_mm, recipe.side_axis

    def __call__(self, place: Place, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Cut a patch and change it.

        Returns
        -------
        tuple
            (C, D, H, W) float32 and (1, D, H, W) int32. Outside the case both are 0.
        """
        if not isinstance(place.case, TrainingCase):
            raise TypeError(f"{place.case.name} has no image")
        prepared = place.case.prepared
        spacing_mm = self.spacing_mm or prepared.grid.turned(prepared.axes).spacing_mm
        warp = draw_warp(self.config, self.window, spacing_mm, rng)
        image, labels = warped(prepared.tensor_CDHW, place.case.labels_DHW, place.start, self.window, warp)
        if self.side_axis in warp.flips:
            labels = swapped(labels, self.config.swapped_labels)
        return torch.stack([change_intensity(channel, self.config, rng) for channel in image]), labels


def swapped(labels: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Labels in which the two values of each pair have changed places."""
    result = labels.clone()
    for first, second in pairs:
        result[labels == first] = second
        result[labels == second] = first
    return result
