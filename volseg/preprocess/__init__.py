"""From a volume to the tensor that the network sees, as the recipe says.

Reorient, normalise, resample, in this order. `Prepared` remembers what is needed to go back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from volseg.config import STORED_KJI, Recipe
from volseg.geometry import AxisMap, Geometry, Shape
from volseg.preprocess.intensity import normalise
from volseg.resample import resize
from volseg.volume import LabelVolume, Volume


@dataclass(frozen=True)
class Prepared:
    """A volume as the network sees it.

    Attributes
    ----------
    tensor_CDHW
        Normalised values on the model's grid, float32.
    axes
        From the source's i, j, k to D, H, W.
    source
        The source's grid.
    """

    tensor_CDHW: Tensor
    axes: AxisMap
    source: Geometry

    @property
    def turned_shape(self) -> Shape:
        """D, H, W of the source's grid, before resampling."""
        return self.source.turned(self.axes).shape


def model_axes(geometry: Geometry, recipe: Recipe) -> AxisMap:
    """Map from a grid's i, j, k to the recipe's D, H, W."""
    if recipe.orientation == STORED_KJI:
        return AxisMap.reversed_axes()
    return AxisMap.between(geometry.orientation, recipe.orientation)


def model_shape(geometry: Geometry, recipe: Recipe) -> Shape:
    """Sizes along D, H, W on the model's grid: the source's box at the recipe's spacing."""
    turned = geometry.turned(model_axes(geometry, recipe))
    if recipe.spacing_mm is None:
        return turned.shape
    wanted = zip(turned.extent_mm, recipe.spacing_mm, strict=True)
    d, h, w = (max(1, round(extent / spacing)) for extent, spacing in wanted)
    return d, h, w


def prepare(volume: Volume, recipe: Recipe) -> Prepared:
    """Reorient, normalise and resample (cubic spline) a volume.

    Parameters
    ----------
    volume
        With as many channels as the recipe has.
    recipe
        Orientation, intensity and spacing.
    """
    axes = model_axes(volume.geometry, recipe)
    values = np.ascontiguousarray(axes.apply(volume.array_CIJK), dtype=np.float32)
    tensor = normalise(torch.from_numpy(values), recipe.intensity)
    tensor = resize(tensor, model_shape(volume.geometry, recipe), order=3)
    return Prepared(tensor, axes, volume.geometry)


def prepare_labels(labels: LabelVolume, recipe: Recipe) -> Tensor:
    """Labels on the model's grid: (D, H, W) int64.

    Resampled by the share of each label in a voxel (linear interpolation of its mask), the largest share wins: labels
    are never interpolated as numbers.
    """
    axes = model_axes(labels.geometry, recipe)
    turned = torch.from_numpy(np.ascontiguousarray(axes.apply(labels.array), dtype=np.int64))
    shape = model_shape(labels.geometry, recipe)
    if tuple(turned.shape) == shape:
        return turned
    best = torch.zeros(shape)
    result = torch.zeros(shape, dtype=torch.int64)
    for value in np.unique(turned.numpy()).tolist():
        share = resize((turned == value).float()[None], shape, order=1)[0]
        wins = share > best
        best[wins], result[wins] = share[wins], value
    return result
