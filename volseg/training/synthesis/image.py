"""From a place in a label map to an image and its labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from volseg.config import Recipe, SynthesisConfig
from volseg.preprocess.intensity import normalise
from volseg.training.sampling import Place
from volseg.training.synthesis.artefacts import distorted, normal
from volseg.training.synthesis.intensities import draw_intensities
from volseg.training.synthesis.label_map import LabelMap
from volseg.training.synthesis.maps import trained_labels
from volseg.training.synthesis.resolution import scanned
from volseg.training.synthesis.view import View, cut_view, shown, stripped
from volseg.training.warp import Warp, coordinates, draw_warp

Spacing = tuple[float, float, float]


class Synthesis:
    """Synthetic patches, each a function of a place and a generator's state.

    Parameters
    ----------
    recipe
        Window, spacing, geometric changes and intensity.
    config
        Ranges and probabilities of the images.
    """

    def __init__(self, recipe: Recipe, config: SynthesisConfig) -> None:
        self.recipe, self.config = recipe, config
        self.window, self.side_axis = recipe.window, recipe.side_axis
        self.trained, self.mirrored = trained_labels(config), mirrored(config)
        self.fluid = torch.tensor([value in config.fluid for value in config.values])

    def __call__(self, place: Place, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Make an image of a window.

        Returns
        -------
        tuple
            (C, D, H, W) float32 as the network sees it, and (1, D, H, W) int32 labels.
        """
        label_map = place.case
        if not isinstance(label_map, LabelMap):
            raise TypeError(f"{label_map.name} is no label map")
        spacing_mm = self.recipe.spacing_mm or label_map.spacing_mm
        warp = draw_warp(self.recipe.training.augmentation, self.window, spacing_mm, rng)
        at = places(warp, place.start, label_map.spacing_mm, spacing_mm, self.window)
        part, at = seen(at, label_map.labels_DHW)
        index = nearest(part, at)
        if self.side_axis in warp.flips:
            index, part = self.mirrored[index], self.mirrored[part.int()]
        channels = [self._channel(part, at, index, spacing_mm, rng) for _ in self.recipe.channels]
        view = cut_view(self.window, self.config, rng)
        images = [self._as_network_sees(channel, view, number, rng) for number, channel in enumerate(channels)]
        return torch.stack(images), shown(self.trained[index], view)[None]

    def _channel(
        self, part: Tensor, at: Tensor, index: Tensor, spacing_mm: Spacing, rng: np.random.Generator
    ) -> Tensor:
        """An image of one contrast, about 0 to 1."""
        mean, spread = interpolated(draw_intensities(self.config, rng), part, at)
        image = (mean + spread * normal(mean.shape, rng)).clamp_(min=0)
        kept = stripped(index, self.trained, self.fluid, self.config, rng)
        if kept is not None:
            image *= kept
        return distorted(scanned(image, spacing_mm, self.config, rng), spacing_mm, self.config, rng)

    def _as_network_sees(self, channel: Tensor, view: View, number: int, rng: np.random.Generator) -> Tensor:
        """Normalise what the field of view holds, nearly as its whole scan is; what is outside is 0."""
        values = normalise(channel[view].clone(), self.recipe.intensities[number])
        values *= float(np.exp(rng.uniform(*np.log(self.config.scan_scale))))
        values += float(rng.uniform(-1, 1) * self.config.scan_shift)
        result = torch.zeros_like(channel)
        result[view] = values
        return result


def mirrored(config: SynthesisConfig) -> Tensor:
    """(N,) place of each value's mirror in `SynthesisConfig.values`."""
    mirror = {each.value: each.value if each.mirror is None else each.mirror for each in config.structures}
    place = {value: number for number, value in enumerate(config.values)}
    return torch.tensor([place[mirror[value]] for value in config.values])


def places(
    warp: Warp, start: Sequence[int], map_mm: Sequence[float], model_mm: Sequence[float], window: Sequence[int]
) -> Tensor:
    """Where in a map, in its voxels, each voxel of a window on the model's grid comes from: (D, H, W, 3).

    Parameters
    ----------
    warp
        Warp of the window, in the model's voxels.
    start
        First voxel of the window in the map; the window is as long in millimetres on both grids.
    map_mm, model_mm
        Spacings along D, H, W.
    window
        Size in the model's voxels.
    """
    ratio, size = np.array(model_mm) / np.array(map_mm), np.array(window)
    bend = warp.bend_KDHW
    if bend is not None:
        bend = bend * torch.from_numpy(ratio).float()[:, None, None, None]
    middle = np.array(start) + (size * ratio - 1) / 2
    finer = Warp(np.diag(ratio) @ warp.matrix, warp.flips, bend)
    # `coordinates` counts from a first voxel, and adds half of the window to it.
    return coordinates(finer, (middle - (size - 1) / 2).tolist(), window)


def seen(at: Tensor, labels_DHW: Tensor) -> tuple[Tensor, Tensor]:
    """The part of a map that a window sees, and the window's places in it."""
    size = torch.tensor(labels_DHW.shape)
    low = torch.minimum(at.amin((0, 1, 2)).floor().long().clamp(min=0), size - 1)
    high = torch.maximum(torch.minimum(at.amax((0, 1, 2)).ceil().long() + 1, size), low + 1)
    part = labels_DHW[tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))]
    return part.contiguous(), at - low


def nearest(part: Tensor, at: Tensor) -> Tensor:
    """(D, H, W) int64: the value of the nearest voxel; 0, the map's background, where that is outside."""
    flat, inside = torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.bool)
    for size, line in zip(part.shape, at.round().int().unbind(-1), strict=True):
        inside = inside & (line >= 0) & (line < size)
        flat = flat * size + line.clamp(0, size - 1)
    found = part.flatten().index_select(0, flat.flatten()).reshape(flat.shape)
    return torch.where(inside, found, 0).long()


def interpolated(table: Tensor, part: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread at each place, (D, H, W) each: linear between a map's voxels, as where tissues share a voxel.

    Parameters
    ----------
    table
        (2, N) mean and spread of each value.
    part
        Values, 0 being the background, which is all that is outside.
    at
        Places in it, in voxels.
    """
    rest = table[:, :1]
    values = (table - rest).index_select(1, part.flatten().int()).reshape(1, 2, *part.shape)
    grid = ((at * 2 + 1) / torch.tensor(part.shape) - 1).flip(-1)[None]
    mean, spread = functional.grid_sample(values, grid, "bilinear", "zeros", False)[0]
    return mean + rest[0], spread + rest[1]
