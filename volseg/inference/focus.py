"""The part of a scan in which labels are: found by a coarse pass, and all that a fine one sees."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from volseg.config import Recipe
from volseg.events import Stage
from volseg.geometry import AxisMap, Geometry, Shape
from volseg.inference.decide import Labels, support
from volseg.inference.engines import Engine
from volseg.inference.stream import Placement, stream
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box, Part, content_box
from volseg.resample import axis_operator
from volseg.volume import Source

#: The coarse pass' step, as a share of the window: as few windows as cover the scan.
COARSE_STEP = 1.0
#: What the fine pass sees around the labels that the coarse one found, as a share of the window: a border of a window's
#: own half would weigh nothing, and a quarter lets labels grow.
MARGIN = 0.25


def narrowed(
    prepared: Prepared,
    engines: Sequence[Engine],
    recipe: Recipe,
    wanted: Collection[int],
    placement: Placement,
    stage: Stage,
) -> tuple[Prepared, int]:
    """The part of a scan that a coarse pass found labels in, and the number of windows that this took.

    Where it found nothing, all of the scan is left: that there is nothing is then said by the usual steps.

    Parameters
    ----------
    prepared
        The whole scan.
    engines, recipe, wanted, placement, stage
        The same as for `volseg.inference.stream.stream`. The coarse pass isn't mirrored.
    """
    d, h, w = prepared.tensor_CDHW.shape[1:]
    # Its labels are decided on the model's grid.
    grid = Prepared(prepared.tensor_CDHW, AxisMap((0, 1, 2), (False, False, False)), Geometry((d, h, w), np.eye(4)))
    steps = recipe.model_copy(update={"tile_step": COARSE_STEP})
    found = stream(grid, engines, steps, Source(), wanted=wanted, placement=placement, stage=stage)
    return focused(prepared, found.mask.array, recipe), found.windows


def focused(prepared: Prepared, labels_DHW: Labels, recipe: Recipe) -> Prepared:
    """The part of a scan that holds the labels of its coarse pass; all of it where there are none.

    Parameters
    ----------
    prepared
        The whole scan.
    labels_DHW
        Labels on the model's grid, 0 where nothing was found that is wanted.
    recipe
        Recipe of the model: no part is smaller than its window, as far as the scan has so much.
    """
    found = content_box(labels_DHW[None])
    whole: Shape = (labels_DHW.shape[0], labels_DHW.shape[1], labels_DHW.shape[2])
    spans = [_span(*axis) for axis in zip(found.start, found.shape, whole, recipe.window, strict=True)]
    target = prepared.box
    rows = []
    for axis, (size_in, size_out) in enumerate(zip(whole, target.shape, strict=True)):
        first, last = support(axis_operator(size_in, size_out, 0 if axis == prepared.nearest_axis else 1))
        inside = ((first >= spans[axis].start) & (last <= spans[axis].stop)).nonzero().flatten().tolist()
        if not inside:  # the model's grid is so much finer that no voxel of the source lies in the part
            return prepared
        rows.append(slice(inside[0], inside[-1] + 1))
    part = Part(_box(spans), _box(rows), whole, target.shape)
    (d, h, w), crop = part.target.start, target.start
    seen = Box((crop[0] + d, crop[1] + h, crop[2] + w), part.target.shape)
    tensor_CDHW = prepared.tensor_CDHW[(slice(None), *part.tensor.slices)]
    return replace(prepared, tensor_CDHW=tensor_CDHW, crop=seen, part=part)


def _span(start: int, length: int, size: int, window: int) -> slice:
    """Along one axis: what was found, its margin, and at least a window where the axis is so long."""
    margin = round(window * MARGIN)
    missing = max(0, window - length - 2 * margin)
    first = max(0, min(start - margin - missing // 2, size - window))
    return slice(first, min(size, max(start + length + margin, first + window)))


def _box(spans: list[slice]) -> Box:
    d, h, w = spans
    return Box((d.start, h.start, w.start), (d.stop - d.start, h.stop - h.start, w.stop - w.start))
