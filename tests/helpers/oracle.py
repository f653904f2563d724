"""The slow, obvious way to labels: logits of the whole scan, all of them resized, then decided.

Everything is in double precision and nothing is pruned; `clear` says where rounding can't change the label.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage, special
from torch import Tensor
from torch.nn import functional

from volseg.config import Recipe
from volseg.inference.blend import gaussian_weight
from volseg.inference.engines import Engine
from volseg.inference.windows import padding_to, window_slices
from volseg.preprocess import Prepared
from volseg.resample import axis_operator

#: Logits that are nearer to each other than this may change places by rounding.
MARGIN = 1e-4


def whole_logits(
    tensor_CDHW: Tensor, engines: Sequence[Engine], recipe: Recipe, mirrored: Sequence[int] = ()
) -> Tensor:
    """(outputs, D, H, W) float64 logits: each voxel's is the weighted mean over every pass that holds it."""
    padding = padding_to(tensor_CDHW.shape[1:], recipe.window)
    padded = functional.pad(tensor_CDHW, [n for pair in reversed(padding) for n in pair])
    weight = gaussian_weight(recipe.window).double()
    total = torch.zeros((recipe.outputs, *padded.shape[1:]), dtype=torch.float64)
    weights = torch.zeros(padded.shape[1:], dtype=torch.float64)
    flips = [
        [axis + 1 for axis in axes]
        for count in range(len(mirrored) + 1)
        for axes in itertools.combinations(mirrored, count)
    ]
    for place in window_slices(padded.shape[1:], recipe.window, recipe.tile_step):
        for flip, engine in itertools.product(flips, engines):
            values = engine(padded[(slice(None), *place)].flip(flip)[None])[0].double()
            if engine.head is not None:
                values = values @ engine.head.weight.double() + engine.head.bias.double()
            logits = values.movedim(-1, 0).flip(flip)
            total[(slice(None), *place)] += logits * weight
            weights[place] += weight
    inner = [slice(before, size - after) for (before, after), size in zip(padding, weights.shape, strict=True)]
    return (total / weights)[(slice(None), *inner)]


def resized(logits_CDHW: Tensor, shape: Sequence[int], nearest: int | None = None) -> Tensor:
    """All logits on another grid: one matrix an axis, in double precision."""
    for axis in range(3):
        operator = axis_operator(logits_CDHW.shape[axis + 1], shape[axis], 0 if axis == nearest else 1)
        logits_CDHW = torch.tensordot(logits_CDHW.double(), operator, dims=([axis + 1], [1])).movedim(-1, axis + 1)
    return logits_CDHW


def decided(logits_CDHW: Tensor, recipe: Recipe) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Label of each voxel, and where it is clear."""
    values = [label.value for label in recipe.labels]
    if recipe.output == "softmax":
        best = logits_CDHW.sort(0, descending=True).values
        labels = np.array([0, *values])[logits_CDHW.argmax(0).numpy()]
        return labels, (best[0] - best[1] > MARGIN).numpy()
    labels = np.zeros(logits_CDHW.shape[1:], dtype=np.int64)
    for value, region in zip(values, logits_CDHW, strict=True):
        labels[(region > 0).numpy()] = value
    return labels, (logits_CDHW.abs().amin(0) > MARGIN).numpy()


def regions_of(prepared: Prepared, engines: Sequence[Engine], recipe: Recipe) -> list[npt.NDArray[np.float64]]:
    """[i, j, k] logits of each region on the source's grid, -1 where the network saw nothing."""
    logits = resized(whole_logits(prepared.tensor_CDHW, engines, recipe, ()), prepared.box.shape, prepared.nearest_axis)
    turned = np.full((len(logits), *prepared.turned_shape), -1.0)
    turned[(slice(None), *prepared.box.slices)] = logits.numpy()
    return [prepared.axes.inverse().apply(region) for region in turned]


def labels_of(
    prepared: Prepared, engines: Sequence[Engine], recipe: Recipe, mirrored: Sequence[int] = ()
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """[i, j, k] labels on the source's grid, and where they are clear."""
    logits = whole_logits(prepared.tensor_CDHW, engines, recipe, mirrored)
    seen, clear = decided(resized(logits, prepared.box.shape, prepared.nearest_axis), recipe)
    turned, everywhere = np.zeros(prepared.turned_shape, dtype=np.int64), np.ones(prepared.turned_shape, dtype=bool)
    turned[prepared.box.slices], everywhere[prepared.box.slices] = seen, clear
    back = prepared.axes.inverse()
    return back.apply(turned), back.apply(everywhere)


def maps_of(
    prepared: Prepared, engines: Sequence[Engine], recipe: Recipe, mirrored: Sequence[int] = ()
) -> npt.NDArray[np.float64]:
    """(outputs + 1, i, j, k) on the source's grid: probabilities, and behind them the entropy in bits."""
    logits = resized(
        whole_logits(prepared.tensor_CDHW, engines, recipe, mirrored), prepared.box.shape, prepared.nearest_axis
    )
    turned = np.zeros((recipe.outputs + 1, *(prepared.zoomed or prepared.turned_shape)))
    if recipe.output == "softmax":
        turned[0] = 1
    turned[(slice(None), *prepared.box.slices)] = with_entropy(logits, recipe.output)
    if prepared.zoomed is not None:
        factors = [new / old for new, old in zip(prepared.turned_shape, prepared.zoomed, strict=True)]
        turned = np.stack([ndimage.zoom(each, factors, order=0, mode="nearest") for each in turned])
    return prepared.axes.inverse().apply(turned)


def with_entropy(logits_CDHW: Tensor, output: str) -> npt.NDArray[np.float64]:
    """(C + 1, D, H, W) probabilities, and the entropy in bits."""
    logits = logits_CDHW.double().numpy()
    if output == "softmax":
        p = special.softmax(logits, axis=0)
        bits = special.entr(p).sum(0)
    else:
        p = special.expit(logits)
        bits = (special.entr(p) + special.entr(1 - p)).sum(0)
    return np.concatenate([p, bits[None] / np.log(2)])
