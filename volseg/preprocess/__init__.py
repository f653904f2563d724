"""From a volume to the tensor that the network sees, as the recipe says.

Reorient, crop, normalise, resample, in this order; where the recipe resamples images, it does so before the crop.
`Prepared` remembers what is needed to go back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from volseg.config import Recipe
from volseg.geometry import AxisMap, Geometry, Shape
from volseg.preprocess.grid import (
    Box,
    Part,
    Spacing,
    as_stated,
    content_box,
    model_axes,
    resampled_shape,
    separate_axis,
)
from volseg.preprocess.intensity import content_mask, normalise
from volseg.resample import resize, zoomed
from volseg.volume import LabelVolume, Volume, Voxels


@dataclass(frozen=True)
class Prepared:
    """A volume as the network sees it.

    Attributes
    ----------
    tensor_CDHW
        Normalised values on the model's grid, float32.
    axes
        Map from the source's i, j, k to D, H, W.
    grid
        The scan's.
    crop
        The part of the grid that labels are decided on which the network sees; None: all of it.
    nearest_axis
        Tensor axis along which logits take the nearest slice on their way back; None: they are interpolated.
    zoomed
        D, H, W of the whole scan on the model's grid, where labels are decided there, and then put back; None: they are
        decided on the turned source.
    part
        The whole that the tensor is a part of; None: it is whole.
    """

    tensor_CDHW: Tensor
    axes: AxisMap
    grid: Geometry
    crop: Box | None = None
    nearest_axis: int | None = None
    zoomed: Shape | None = None
    part: Part | None = None

    @property
    def turned_shape(self) -> Shape:
        """D, H, W of the source's grid, before resampling."""
        return self.grid.turned(self.axes).shape

    @property
    def box(self) -> Box:
        """The part of the grid that labels are decided on which the network sees."""
        return self.crop or Box((0, 0, 0), self.zoomed or self.turned_shape)


def model_shape(geometry: Geometry, recipe: Recipe) -> Shape:
    """Sizes along D, H, W on the model's grid: the source's box at the recipe's spacing."""
    turned = geometry.turned(model_axes(geometry, recipe))
    return resampled_shape(turned.shape, turned.spacing_mm, recipe)


def prepare(volume: Volume, recipe: Recipe, mask: LabelVolume | None = None) -> Prepared:
    """Reorient, crop, normalise and resample a volume, as the recipe's `resampling.scheme` orders it.

    Parameters
    ----------
    volume
        Scan with as many channels as the recipe has.
    recipe
        Recipe, for orientation, crop, intensity, spacing and resampling.
    mask
        Mask of a cascade's first stage: what is labelled counts as content in normalisation.
    """
    axes = model_axes(volume.geometry, recipe)
    turned = volume.geometry.turned(axes)
    array_CDHW = axes.apply(volume.array_CIJK)
    image_first = recipe.resampling.scheme == "image"
    if image_first:
        array_CDHW = _zoomed_image(array_CDHW, turned.spacing_mm, recipe)
    d, h, w = array_CDHW.shape[1:]
    box = content_box(array_CDHW) if recipe.crop == "nonzero" else Box((0, 0, 0), (d, h, w))
    array_CDHW = array_CDHW[(slice(None), *box.slices)]
    content = content_mask(array_CDHW) if any(config.use_mask for config in recipe.intensities) else None
    if content is not None and mask is not None:
        content |= torch.from_numpy(axes.apply(mask.array)[box.slices] != 0)
    new_mm = recipe.spacing_mm or turned.spacing_mm
    rule = recipe.resampling.separate_axis
    shape = box.shape if image_first else resampled_shape(box.shape, turned.spacing_mm, recipe)
    nearest = separate_axis(turned.spacing_mm, new_mm, rule)
    tensor = torch.empty((len(array_CDHW), *shape))
    for channel, config, out in zip(array_CDHW, recipe.intensities, tensor, strict=True):
        # One channel at a time, and a copy only where it is to be resampled: scans are large.
        values = out if box.shape == shape else torch.empty(box.shape)
        values.numpy()[...] = channel
        normalise(values, config, content)
        if values is not out:
            out.copy_(resize(values[None], shape, order=recipe.resampling.image_order, nearest=nearest)[0])
    way_back = separate_axis(new_mm, turned.spacing_mm, rule)
    return Prepared(tensor, axes, volume.geometry, box, way_back, (d, h, w) if image_first else None)


def _zoomed_image(array_CDHW: Voxels, spacing_mm: Spacing, recipe: Recipe) -> Voxels:
    """The scan's values at the model's spacing, cut to integers; float32. A scan that has this spacing stays as is."""
    if recipe.spacing_mm is None or tuple(map(as_stated, spacing_mm)) == recipe.spacing_mm:
        return array_CDHW
    d, h, w = array_CDHW.shape[1:]
    shape = resampled_shape((d, h, w), spacing_mm, recipe)
    result = np.empty((len(array_CDHW), *shape), np.float32)
    for channel, out in zip(array_CDHW, result, strict=True):
        np.trunc(zoomed(channel, shape), out=out, casting="same_kind")
    return result


def prepare_labels(mask: LabelVolume, recipe: Recipe, crop: Box | None = None) -> Tensor:
    """Labels on the model's grid: (D, H, W) int64.

    Resampled by the share of each label in a voxel (linear interpolation of its mask), the largest share wins: labels
    are never interpolated as numbers.

    Parameters
    ----------
    mask
        Mask on the scan's grid.
    recipe
        Recipe, for orientation, spacing and resampling.
    crop
        Crop of the scan, as `Prepared` has it.
    """
    axes = model_axes(mask.geometry, recipe)
    turned = mask.geometry.turned(axes)
    if recipe.resampling.scheme == "image":
        whole = _resampled_labels(axes.apply(mask.array), turned.spacing_mm, recipe)
        return whole if crop is None else whole[crop.slices].contiguous()
    box = crop or Box((0, 0, 0), turned.shape)
    return _resampled_labels(axes.apply(mask.array)[box.slices], turned.spacing_mm, recipe)


def _resampled_labels(array_DHW: Voxels, spacing_mm: Spacing, recipe: Recipe) -> Tensor:
    """Labels at the model's spacing; the first of equal shares wins."""
    array = torch.from_numpy(np.ascontiguousarray(array_DHW, dtype=np.int64))
    d, h, w = array.shape
    shape = resampled_shape((d, h, w), spacing_mm, recipe)
    if (d, h, w) == shape:
        return array
    nearest = separate_axis(spacing_mm, recipe.spacing_mm or spacing_mm, recipe.resampling.separate_axis)
    best = torch.zeros(shape)
    result = torch.zeros(shape, dtype=torch.int64)
    for value in np.unique(array.numpy()).tolist():
        mask = (array == value).float()
        if recipe.resampling.scheme == "image":
            share = torch.from_numpy(zoomed(mask.numpy(), shape)).float()
        else:
            share = resize(mask[None], shape, order=1, nearest=nearest)[0]
        wins = share > best
        best[wins], result[wins] = share[wins], value
    return result
