"""A coarse pass finds where labels are; what the fine one sees is the same part of both grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.oracle import resized
from tests.helpers.streams import Random, prepared_of, recipe_of
from tests.helpers.tiny import threshold_model
from volseg.geometry import Geometry
from volseg.inference import Options, Segmenter, load_model
from volseg.inference.focus import focused
from volseg.inference.stream import Placement, layout_of, stream
from volseg.preprocess.grid import Box
from volseg.volume import Source, Volume

WINDOW = (8, 8, 8)


def test_the_part_worked_by_hand() -> None:
    """Along 40 of D a label at 20 to 23, margin 2: 18 to 26 is a window already; H is no longer than one."""
    recipe = recipe_of(window=list(WINDOW))
    prepared = prepared_of((40, 8, 40), Box((1, 2, 3), (80, 8, 20)), (0, 0, 0))
    labels = np.zeros((40, 8, 40), np.uint8)
    labels[20:24, 3, 37:40] = 1
    part = focused(prepared, labels, recipe)
    assert part.part is not None
    assert part.part.tensor == Box((18, 0, 32), (8, 8, 8))
    # At twice the resolution voxel o lies at o / 2 - 1 / 4: 37 to 50 lie between 18 and 25. At half of it, between 2 o
    # and 2 o + 1: 16 to 19.
    assert part.part.target == Box((37, 0, 16), (14, 8, 4))
    assert part.box == Box((38, 2, 19), (14, 8, 4))
    assert torch.equal(part.tensor_CDHW, prepared.tensor_CDHW[:, 18:26, :, 32:])


@given(
    shape=st.tuples(*(st.integers(8, 40),) * 3),
    seen=st.tuples(*(st.integers(4, 60),) * 3),
    nearest=st.sampled_from([None, 0, 1, 2]),
    at=st.tuples(*(st.floats(0, 0.999),) * 3),
)
def test_a_part_is_restored_as_the_same_part_of_the_whole(
    shape: tuple[int, int, int], seen: tuple[int, int, int], nearest: int | None, at: tuple[float, float, float]
) -> None:
    recipe = recipe_of(window=list(WINDOW))
    prepared = prepared_of(shape, Box((0, 0, 0), seen), (0, 0, 0), nearest=nearest)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(int(share * size) for share, size in zip(at, shape, strict=True))] = 1
    part = focused(prepared, labels, recipe)
    logits = torch.randn((3, *shape), generator=torch.Generator().manual_seed(0))
    whole = resized(logits, seen, nearest)[(slice(None), *part.box.slices)]
    layout = layout_of(part, recipe)
    values = logits if part.part is None else logits[(slice(None), *part.part.tensor.slices)]
    for axis in range(3):
        operator = layout.axes[layout.turned.index(axis)].operator
        if operator is not None:
            values = torch.tensordot(values, operator, dims=([axis + 1], [1])).movedim(-1, axis + 1)
    torch.testing.assert_close(values.float(), whole.float())
    # Every voxel that shows the label is inside.
    shown = resized(torch.from_numpy(labels)[None], seen, nearest)[0] > 0
    shown[part.box.slices] = False
    assert not shown.any()


@pytest.mark.parametrize("overlap", [False, True])
def test_labels_of_a_part_lie_where_those_of_the_whole_do(overlap: bool) -> None:
    """An engine that says the same of a voxel in every window: a part is then the whole's, voxel by voxel."""

    class Local(Random):
        def __init__(self) -> None:
            super().__init__(4, WINDOW)
            self.shift = torch.zeros(())
            self.kernel = self.kernel[..., 1:2, 1:2, 1:2]

        def __call__(self, x_BCDHW: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv3d(x_BCDHW, self.kernel).movedim(1, -1).contiguous()

    recipe = recipe_of(window=list(WINDOW))
    prepared = prepared_of((30, 12, 25), Box((1, 0, 2), (45, 12, 61)), (0, 3, 1))
    labels = np.zeros((30, 12, 25), np.uint8)
    labels[12:14, 3:5, 10:14] = 1
    part = focused(prepared, labels, recipe)
    whole = stream(prepared, [Local()], recipe, Source()).mask.array
    found = stream(part, [Local()], recipe, Source(), placement=Placement(overlap=overlap)).mask.array
    inside = part.box.slices
    assert np.array_equal(found[inside], whole[inside])
    assert found[inside].any()
    outside = np.ones(found.shape, bool)
    outside[inside] = False
    assert not found[outside].any()


def test_a_model_looks_where_the_coarse_pass_found_something(tmp_path: Path) -> None:
    array = np.zeros((60, 20, 50), np.int16)
    array[40:45, 5:9, 10:14] = 250
    volume = Volume(array, Geometry(array.shape, np.diag([1.0, 1.0, 2.0, 1.0])))
    threshold_model(tmp_path / "m")
    model = load_model(tmp_path / "m")
    whole, part = (Segmenter(model, Options(coarse_to_fine=focus)).segment(volume) for focus in (False, True))
    assert np.array_equal(part.mask.array, whole.mask.array)
    # Windows of 8: whole 14 x 4 x 12; coarse 8 x 3 x 7; fine: 5, 4 and 4 voxels with a margin of 2 on each side.
    assert whole.windows == 14 * 4 * 12
    assert part.windows == 8 * 3 * 7 + 2 * 1 * 1
    # Two values, neither above the threshold: nothing is found.
    dark = np.zeros_like(array)
    dark[0, 0, 0] = -5
    empty = Volume(dark, volume.geometry)
    assert not Segmenter(model, Options(coarse_to_fine=True)).segment(empty).mask.array.any()
