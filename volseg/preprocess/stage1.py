"""Labels of a cascade's first stage on the grid of the second, as nnU-Net v2 puts them there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from volseg.config import Recipe
from volseg.geometry import Shape
from volseg.preprocess import Prepared
from volseg.preprocess.grid import separate_axis
from volseg.preprocess.intensity import content_mask
from volseg.resample import nearest_index, resize
from volseg.volume import LabelVolume, Volume

#: Beyond the content: in resampling it is a label of its own, then background.
OUTSIDE = -1
#: Shares that differ by less are equal, and the nearest voxel decides.
SAME_SHARE = 1e-9


def with_stage1(prepared: Prepared, volume: Volume, labels: LabelVolume, recipe: Recipe) -> Tensor:
    """Append the first stage's labels to the network's input, as one more channel that holds their values.

    Parameters
    ----------
    prepared, volume
        The scan as the second stage sees it, and as it was read.
    labels
        Of the first stage, on the volume's grid.
    recipe
        Of the second stage.

    Returns
    -------
    Tensor
        (C + 1, D, H, W) float32. A voxel has the label whose share in it is the largest (linear interpolation of its
        mask, `volseg.resample.resize`); of equal ones that of the nearest voxel. Where the scan is cropped to its
        content, background outside of the content is a label of its own until then.
    """
    box = prepared.box.slices
    values = torch.from_numpy(np.ascontiguousarray(prepared.axes.apply(labels.array)[box], dtype=np.int32))
    if recipe.crop == "nonzero":
        content = content_mask(prepared.axes.apply(volume.array_CIJK)[(slice(None), *box)])
        values[(values == 0) & ~content] = OUTSIDE
    turned = volume.geometry.turned(prepared.axes)
    nearest = separate_axis(turned.spacing_mm, recipe.spacing_mm or turned.spacing_mm, recipe.resampling.separate_axis)
    d, h, w = prepared.tensor_CDHW.shape[1:]
    resized = _resized(values, (d, h, w), nearest).clamp_(min=0)
    return torch.cat([prepared.tensor_CDHW, resized[None]])


def _resized(values_DHW: Tensor, shape: Shape, nearest: int | None) -> Tensor:
    """Labels (D, H, W) on another grid, float32."""
    if tuple(values_DHW.shape) == shape:
        return values_DHW.float()
    closest = values_DHW
    for axis, size in enumerate(shape):
        closest = closest.index_select(axis, nearest_index(values_DHW.shape[axis], size))
    best, share_of_closest = torch.zeros((2, *shape), dtype=torch.float64)
    result = torch.zeros(shape)
    for value in np.unique(values_DHW.numpy()).tolist():
        share = resize((values_DHW == value).double()[None], shape, order=1, nearest=nearest)[0]
        wins = share > best + SAME_SHARE
        best[wins], result[wins] = share[wins], value
        is_closest = closest == value
        share_of_closest[is_closest] = share[is_closest]
    tied = share_of_closest >= best - SAME_SHARE
    result[tied] = closest[tied].float()
    return result
