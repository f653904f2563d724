"""From logits on the model's grid back to labels on the source's grid, exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from volseg.config import Recipe
from volseg.geometry import Geometry
from volseg.preprocess import Prepared
from volseg.resample import resampled, resize, resize_argmax
from volseg.volume import LabelVolume, Source


def restore(logits_CDHW: Tensor, prepared: Prepared, recipe: Recipe, source: Source) -> LabelVolume:
    """Labels on the source's grid.

    Logits are resized linearly and decided there: the largest wins (softmax), or each region whose logit is above 0 is
    painted in the recipe's order (sigmoid). Labels themselves are never interpolated. What the network didn't see is
    background.
    """
    shape, nearest = prepared.box.shape, prepared.nearest_axis
    labels = recipe.label_table()
    highest = labels[-1].value
    dtype = np.uint8 if highest < 256 else np.uint16
    if recipe.output == "softmax":
        values = np.array([0, *(label.value for label in labels)], dtype=dtype)
        seen = values[resize_argmax(logits_CDHW, shape, nearest=nearest).numpy()]
    else:
        seen = np.zeros(shape, dtype=dtype)
        for label, region in zip(recipe.labels, logits_CDHW, strict=True):
            seen[(resize(region[None], shape, order=1, nearest=nearest)[0] > 0).numpy()] = label.value
    turned = np.zeros(prepared.turned_shape, dtype=dtype)
    turned[prepared.box.slices] = seen
    array = np.ascontiguousarray(prepared.axes.inverse().apply(turned))
    return LabelVolume(array, prepared.source, labels, source, f"{recipe.name} {recipe.version}")


def on_grid(labels: LabelVolume, geometry: Geometry) -> LabelVolume:
    """Labels on another grid: each voxel has that of the nearest voxel, or none where there is no voxel."""
    if labels.geometry.same_grid(geometry):
        return labels
    array = np.ascontiguousarray(resampled(labels.array, labels.geometry, geometry, order=0, fill=0))
    return replace(labels, array=array, geometry=geometry)
