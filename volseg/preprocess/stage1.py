"""What a cascade's second stage sees: the scan, and the labels of the first stage, as nnU-Net v2 puts them there."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from volseg.config import Recipe
from volseg.geometry import Shape
from volseg.preprocess import Prepared, prepare
from volseg.preprocess.grid import separate_axis
from volseg.preprocess.intensity import content_mask
from volseg.resample import nearest_index, resize
from volseg.volume import LabelVolume, Volume

#: Beyond the content: in resampling it is a label of its own, then background.
OUTSIDE = -1
#: Shares in single precision that differ by less are computed again in double, as scipy does: the last bit decides
#: whether they are equal.
NEARLY_SAME = 1e-5

Values = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]


def prepare_second(volume: Volume, mask: LabelVolume, recipe: Recipe) -> Prepared:
    """Prepare a scan, with the first stage's labels as one more channel that holds their values.

    A voxel has the label whose share in it is the largest (linear interpolation of its mask,
    `volseg.resample.resize`); of equal ones that of the nearest voxel, if it is among them, or else the smallest. Where
    the scan is cropped to its content, background outside of the content is a label of its own until then, and what is
    labelled counts as content in normalisation.

    Parameters
    ----------
    volume
        Scan with as many channels as the recipe has.
    mask
        Mask of the first stage, on the volume's grid.
    recipe
        Recipe of the second stage.
    """
    prepared = prepare(volume, recipe, mask)
    box = prepared.box.slices
    values: Values = prepared.axes.apply(mask.array)[box].astype(np.int32)
    if recipe.crop == "nonzero":
        content = content_mask(prepared.axes.apply(volume.array_CIJK)[(slice(None), *box)]).numpy()
        values[(values == 0) & ~content] = OUTSIDE
    turned = volume.geometry.turned(prepared.axes)
    nearest = separate_axis(turned.spacing_mm, recipe.spacing_mm or turned.spacing_mm, recipe.resampling.separate_axis)
    d, h, w = prepared.tensor_CDHW.shape[1:]
    channel = torch.from_numpy(_resized(values, (d, h, w), nearest)).clamp_(min=0)
    return replace(prepared, tensor_CDHW=torch.cat([prepared.tensor_CDHW, channel[None]]))


def _resized(values_DHW: Values, shape: Shape, nearest: int | None) -> npt.NDArray[np.float32]:
    """Labels (D, H, W) on another grid."""
    if values_DHW.shape == shape:
        return values_DHW.astype(np.float32)
    best, margin, result = np.zeros((3, *shape), np.float32)
    for value in np.unique(values_DHW).tolist():
        mask = torch.from_numpy(values_DHW == value).float()
        share = resize(mask[None], shape, order=1, nearest=nearest)[0].numpy()
        wins = share > best
        np.minimum(margin, best - share, out=margin, where=~wins)
        np.subtract(share, best, out=margin, where=wins)
        best[wins], result[wins] = share[wins], value
    unsure = np.nonzero(margin < NEARLY_SAME)
    if len(unsure[0]):
        result[unsure] = _decided(values_DHW, shape, nearest, unsure)
    return result


def _decided(values_DHW: Values, shape: Shape, nearest: int | None, voxels: tuple[Indices, ...]) -> Values:
    """Labels of some voxels of the new grid, by shares to the last bit as `scipy.ndimage.zoom` computes them.

    Its order-1 sum goes over the eight neighbours, the last axis fastest, of products of the axes' weights.
    """
    axes, closest_index = [], []
    for axis, (size_in, size_out, index) in enumerate(zip(values_DHW.shape, shape, voxels, strict=True)):
        closest_index.append(nearest_index(size_in, size_out).numpy()[index])
        if axis == nearest:
            axes.append([(closest_index[-1], np.ones(len(index)))])
            continue
        centres = np.clip(size_in / size_out * (index + 0.5) - 0.5, 0, size_in - 1)
        low = np.floor(centres).astype(np.intp)
        weight = 1 - (centres - low)
        axes.append([(low, weight), (np.minimum(low + 1, size_in - 1), 1 - weight)])
    closest: Values = values_DHW[tuple(closest_index)]
    corners = [
        (values_DHW[d, h, w], weight_d * weight_h * weight_w)
        for (d, weight_d), (h, weight_h), (w, weight_w) in itertools.product(*axes)
    ]
    candidates = np.unique(np.stack([found for found, _ in corners]))
    shares = np.zeros((len(candidates), len(closest)))
    for share, value in zip(shares, candidates, strict=True):
        for found, weight in corners:
            share += np.where(found == value, weight, 0.0)
    of_closest = np.where(candidates[:, None] == closest, shares, 0).max(0)
    largest: Values = np.where(of_closest == shares.max(0), closest, candidates[shares.argmax(0)])
    return largest
