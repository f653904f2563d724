"""Streaming gives the labels of the slow way, and the same bytes however it is held in memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.inference import oracle
from tests.tiny import tiny_recipe
from volseg.config import Recipe
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry
from volseg.inference.engines import Precision
from volseg.inference.stream import Placement, stream
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box
from volseg.volume import Source

PLACEMENTS = [Placement(in_file=file, overlap=overlap) for file, overlap in itertools.product((False, True), repeat=2)]


class Random:
    """An engine whose logits look like a network's: of the input around each voxel, and of the place in the window."""

    name = "random"
    precision: Precision = "fp32"

    def __init__(self, outputs: int, window: Sequence[int], seed: int = 0, *, channels_last: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kernel = torch.randn((outputs, 1, 3, 3, 3), generator=generator)
        self.shift = torch.randn((outputs, *window), generator=generator)
        self.channels_last = channels_last

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        logits = torch.nn.functional.conv3d(x_BCDHW, self.kernel, padding=1) + self.shift
        return logits.contiguous(memory_format=torch.channels_last_3d) if self.channels_last else logits


def recipe_of(output: str = "softmax", labels: Sequence[int] = (1, 2, 7), **changes: Any) -> Recipe:
    listed = [{"value": value, "name": f"label {value}", "colour": [value % 256, 0, 0]} for value in labels]
    return tiny_recipe(output=output, labels=listed, network={"strides": [], "features": [4]}, **changes)


def prepared_of(
    shape: tuple[int, int, int],
    box: Box,
    around: tuple[int, int, int],
    axes: AxisMap | None = None,
    nearest: int | None = None,
    seed: int = 0,
) -> Prepared:
    """A tensor of `shape`, seen in `box` of a turned source that is `around` voxels larger."""
    axes = axes or AxisMap.between("RAS", "RAS")
    turned = [start + size + more for start, size, more in zip(box.start, box.shape, around, strict=True)]
    i, j, k = (turned[axes.order.index(axis)] for axis in range(3))
    tensor = torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) * 3
    return Prepared(tensor, axes, Geometry((i, j, k), np.eye(4)), box, nearest)


def check(prepared: Prepared, recipe: Recipe, engines: list[Random], mirrored: Sequence[int] = ()) -> None:
    """Labels are the oracle's where these are clear, and the same bytes in every placement."""
    expected, clear = oracle.labels_of(prepared, engines, recipe, mirrored)
    assert clear.mean() > 0.98
    first, *others = (
        stream(prepared, engines, recipe, Source(), mirrored=mirrored, placement=placement).labels
        for placement in PLACEMENTS
    )
    assert np.array_equal(first.array[clear], expected[clear])
    assert [other.array.tobytes() == first.array.tobytes() for other in others] == [True] * 3


sizes = st.tuples(*(st.integers(1, 19),) * 3)
larger = st.tuples(*(st.integers(1, 40),) * 3)


@settings(max_examples=40)
@given(
    shape=sizes,
    seen=larger,
    start=st.tuples(*(st.integers(0, 3),) * 3),
    around=st.tuples(*(st.integers(0, 3),) * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    nearest=st.sampled_from([None, 0, 1, 2]),
    output=st.sampled_from(["softmax", "sigmoid"]),
    mirrored=st.sampled_from([(), (1,), (0, 2)]),
    folds=st.integers(1, 2),
    step=st.sampled_from([0.3, 0.5, 1.0]),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_labels_are_those_of_the_slow_way_and_the_same_in_every_placement(
    shape: tuple[int, int, int],
    seen: tuple[int, int, int],
    start: tuple[int, int, int],
    around: tuple[int, int, int],
    orientation: str,
    nearest: int | None,
    output: str,
    mirrored: tuple[int, ...],
    folds: int,
    step: float,
    channels_last: bool,
    seed: int,
) -> None:
    window = (6, 4, 8)
    recipe = recipe_of(output, window=list(window), tile_step=step)
    engines = [Random(recipe.outputs, window, seed + fold, channels_last=channels_last) for fold in range(folds)]
    axes = AxisMap.between("RAS", orientation)
    check(prepared_of(shape, Box(start, seen), around, axes, nearest, seed), recipe, engines, mirrored)
