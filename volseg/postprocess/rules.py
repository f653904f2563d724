"""The recipe's rules, label by label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scipy import ndimage

from volseg.config import PostprocessRule
from volseg.geometry import Geometry
from volseg.postprocess.components import Mask, drop_small, largest_component
from volseg.postprocess.holes import enclosed
from volseg.volume import LabelMap, LabelVolume, layered

#: A component's volume may fall short of the smallest by this share of it: rounding of the affine, not a voxel.
VOLUME_SLACK = 1e-6


def apply_rules(mask: LabelVolume, rules: Sequence[PostprocessRule]) -> LabelVolume:
    """Apply each rule to its label, in their order.

    Within a rule: keep the largest component, remove components whose volume (voxels times the grid's
    `voxel_volume_ml`) is below `min_volume_ml`, fill holes. Removed voxels become background (0); a hole's background
    takes the label, and other labels inside it stay. Components connect over 26 neighbours, the background over 6.
    Where there are layers, rules apply to what is seen of a label in the array, and to all of it in the layers: there
    no other label keeps a hole from being filled.

    Parameters
    ----------
    mask
        The mask, which isn't changed.
    rules
        Rules to apply. A label that doesn't occur is no error.

    Returns
    -------
    LabelVolume
        On the same grid, with the same type of voxels.
    """
    array = _ruled(mask.array, rules, mask.geometry)
    if not mask.layers:
        return mask.with_array(array)
    maps = ((label.value, mask.voxels_of(label) * array.dtype.type(label.value)) for label in mask.labels)
    whole = ((value, _ruled(alone, rules, mask.geometry) == value) for value, alone in maps)
    return replace(mask, array=array, layers=layered(whole, array.shape, array.dtype))


def _ruled(before_rules: LabelMap, rules: Sequence[PostprocessRule], geometry: Geometry) -> LabelMap:
    """A label map after the rules for its labels."""
    array = before_rules.copy()
    boxes = ndimage.find_objects(array)
    for rule in rules:
        box = boxes[rule.label - 1] if 0 < rule.label <= len(boxes) else None
        if box is None:
            continue
        i, j, k = box
        shape = (i.stop - i.start, j.stop - j.start, k.stop - k.start)
        block = array[box]
        before = block == rule.label
        after = _components(before, rule, geometry.cropped((i.start, j.start, k.start), shape))
        block[before & ~after] = 0
        if rule.fill_holes:
            block[enclosed(after) & (block == 0)] = rule.label
    return array


def _components(mask: Mask, rule: PostprocessRule, geometry: Geometry) -> Mask:
    if rule.largest_component:
        mask = largest_component(mask, geometry)
    # One voxel is always enough for a component to be there, so a smaller limit asks nothing.
    min_voxels = math.ceil(rule.min_volume_ml / geometry.voxel_volume_ml * (1 - VOLUME_SLACK))
    return drop_small(mask, min_voxels) if min_voxels > 1 else mask
