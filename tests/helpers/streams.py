"""Scans to stream, and an engine whose logits are random."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.helpers.tiny import tiny_recipe
from volseg.config import Recipe
from volseg.geometry import AxisMap, Geometry
from volseg.inference.engines import Precision
from volseg.inference.engines.head import Head
from volseg.inference.stream import Placement
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box

PLACEMENTS = [Placement(in_file=file, overlap=overlap) for file, overlap in itertools.product((False, True), repeat=2)]


class Random:
    """An engine whose logits look like a network's: of the input around each voxel, and of the place in the window.

    With `features`, it leaves the last layer, which makes logits of so many.
    """

    name = "random"
    precision: Precision = "fp32"
    note: str | None = None
    values_held = 1.0

    def __init__(self, outputs: int, window: Sequence[int], seed: int = 0, features: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        values = features or outputs
        self.kernel = torch.randn((values, 1, 3, 3, 3), generator=generator)
        self.shift = torch.randn((values, *window), generator=generator)
        weight, bias = torch.randn((features, outputs), generator=generator), torch.randn(outputs, generator=generator)
        self.head = Head(weight, bias) if features else None

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        values = torch.nn.functional.conv3d(x_BCDHW, self.kernel, padding=1) + self.shift
        return values.movedim(1, -1).contiguous()


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
