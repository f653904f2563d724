"""Where in which case a patch is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from volseg.config import Recipe

Start = tuple[int, int, int]


class Labelled(Protocol):
    """What patches are taken of: a case, or a label map."""

    @property
    def name(self) -> str:
        """Of its case."""

    @property
    def labels_DHW(self) -> Tensor:
        """Labels."""

    @property
    def foreground(self) -> dict[int, Tensor]:
        """Voxels of each label."""

    @property
    def judged(self) -> Tensor | None:
        """Voxels that somebody judged; None: all."""

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Of the voxels along D, H, W where they aren't those of the model's grid."""


@dataclass(frozen=True)
class Place:
    """A window of a case.

    Attributes
    ----------
    case
        The case.
    start
        D, H, W of the window's first voxel in it: negative where the case is smaller than the window.
    """

    case: Labelled
    start: Start


class Sampler:
    """Random places.

    With the recipe's `foreground_fraction` a window is centred on a voxel of a label, chosen as `balance` says; else
    it is anywhere. It doesn't reach beyond a case that is large enough, and stands at random about one that isn't.
    Where a case has voxels that nobody judged, a window is centred on one that somebody did.

    Parameters
    ----------
    cases
        Cases to choose from.
    recipe
        Recipe, for window, fraction and balance.
    """

    def __init__(self, cases: Sequence[Labelled], recipe: Recipe) -> None:
        self.cases, self.recipe, self.config = cases, recipe, recipe.training
        self.holders: dict[int, list[Labelled]] = {}
        for case in cases:
            for value in case.foreground:
                self.holders.setdefault(value, []).append(case)

    def __call__(self, rng: np.random.Generator) -> Place:
        """Next place."""
        case = self.cases[int(rng.integers(len(self.cases)))]
        voxels = case.judged
        by_label = self.config.balance == "label"
        if (self.holders if by_label else case.foreground) and rng.random() < self.config.foreground_fraction:
            if by_label:
                value = sorted(self.holders)[rng.integers(len(self.holders))]
                case = self.holders[value][rng.integers(len(self.holders[value]))]
            else:
                value = list(case.foreground)[rng.integers(len(case.foreground))]
            voxels = case.foreground[value]
        return Place(case, self._start(case, voxels, rng))

    def _window(self, case: Labelled) -> Sequence[int]:
        """Size of the window in the case's voxels."""
        model_mm, case_mm = self.recipe.spacing_mm, case.spacing_mm
        if model_mm is None or case_mm is None:
            return self.recipe.window
        sizes = zip(self.recipe.window, model_mm, case_mm, strict=True)
        return [round(size * new / old) for size, new, old in sizes]

    def _start(self, case: Labelled, voxels: Tensor | None, rng: np.random.Generator) -> Start:
        centre = None if voxels is None else voxels[rng.integers(len(voxels))].tolist()
        start = []
        for axis, (size, length) in enumerate(zip(case.labels_DHW.shape, self._window(case), strict=True)):
            spare = size - length
            if spare <= 0:
                start.append(-int(rng.integers(-spare + 1)))
            else:
                wanted = int(rng.integers(spare + 1)) if centre is None else centre[axis] - length // 2
                start.append(min(max(wanted, 0), spare))
        return start[0], start[1], start[2]
