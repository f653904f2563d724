"""Labels that are the left and the right one of two: a mirror along that axis would exchange them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from volseg.planning.case import Measured
from volseg.planning.naming import Region

#: Sides in names; single letters count as words alone.
_SIDES = {"left": "right", "lt": "rt", "lh": "rh", "l": "r"}
#: By position: two labels are a pair where they lie side by side, one on the same side in every case that has both, ...
FEWEST_CASES = 3
#: ... and their volumes differ by no more than this factor.
SAME_SIZE = 1.5


@dataclass(frozen=True)
class Pair:
    """Values of two labels, their names, and how they were found."""

    values: tuple[int, int]
    names: tuple[str, str]
    found_by: str


def side_pairs(regions: Sequence[Region], cases: Sequence[Measured]) -> tuple[Pair, ...]:
    """Pairs by their names; and, of the labels left, by where they lie."""
    pairs = []
    by_words = {_words(region.name): region for region in regions}
    for words, region in by_words.items():
        other = by_words.get(tuple(_SIDES.get(word, word) for word in words))
        if other is not None and other is not region:
            pairs.append(Pair((region.value, other.value), (region.name, other.name), "name"))
    named = {value for pair in pairs for value in pair.values}
    for one, other in itertools.combinations([region for region in regions if region.value not in named], 2):
        if _side_by_side(one, other, cases):
            pairs.append(Pair((one.value, other.value), (one.name, other.name), "position"))
    return tuple(pairs)


def _words(name: str) -> tuple[str, ...]:
    """Words of a name in small letters, whatever separates them: ``Kidney_Left``, ``leftKidney``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return tuple(re.findall(r"[^\W_]+", spaced.casefold()))


def _side_by_side(one: Region, other: Region, cases: Sequence[Measured]) -> bool:
    """Whether two labels of a size lie at one height and depth, on either side, the same way round in every case."""
    steps, ratios = [], []
    for case in cases:
        if len(one.members) == len(other.members) == 1 and {one.members[0], other.members[0]} <= case.voxels.keys():
            first, second = one.members[0], other.members[0]
            steps.append(np.subtract(case.centres_mm[second], case.centres_mm[first]))
            ratios.append(case.voxels[second] / case.voxels[first])
    if len(steps) < FEWEST_CASES:
        return False
    across, deep, high = np.abs(steps).T
    same_way = len({bool(step[0] > 0) for step in steps}) == 1
    aligned = bool((across > 2 * np.hypot(deep, high)).all())
    return same_way and aligned and 1 / SAME_SIZE < float(np.median(ratios)) < SAME_SIZE
