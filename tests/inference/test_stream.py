"""Streaming gives the labels of the slow way, and the same bytes however it is held in memory."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from tests.helpers import oracle
from tests.helpers.streams import PLACEMENTS, Random, prepared_of, recipe_of
from volseg.config import Recipe
from volseg.errors import ModelError, RefusalError
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry
from volseg.inference import slab
from volseg.inference.stream import Placement, layout_of, stream
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box
from volseg.volume import Source


def check(prepared: Prepared, recipe: Recipe, engines: list[Random], mirrored: Sequence[int] = ()) -> None:
    """Labels are the oracle's where these are clear, and the same bytes in every placement."""
    expected, clear = oracle.labels_of(prepared, engines, recipe, mirrored)
    assert clear.mean() > 0.98
    first, *others = (
        stream(prepared, engines, recipe, Source(), mirrored=mirrored, placement=placement).mask
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
    features=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@pytest.mark.slow
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
    features: int,
    seed: int,
) -> None:
    window = (6, 4, 8)
    recipe = recipe_of(output, window=list(window), tile_step=step)
    engines = [Random(recipe.outputs, window, seed + fold, features) for fold in range(folds)]
    axes = AxisMap.between("RAS", orientation)
    check(prepared_of(shape, Box(start, seen), around, axes, nearest, seed), recipe, engines, mirrored)


def test_a_long_scan_goes_through_a_ring_many_times() -> None:
    """118 labels, values above 255, and rows enough that every place of the ring is used again and again."""
    recipe = recipe_of(labels=range(200, 317), window=[4, 4, 4])
    prepared = prepared_of((5, 6, 40), Box((1, 0, 2), (9, 12, 77)), (0, 2, 1), AxisMap.between("RAS", "SLP"))
    check(prepared, recipe, [Random(recipe.outputs, (4, 4, 4))])
    check(prepared, recipe, [Random(recipe.outputs, (4, 4, 4), fold, features=5) for fold in range(2)])
    labels = stream(prepared, [Random(recipe.outputs, (4, 4, 4))], recipe, Source()).mask
    assert labels.array.dtype == np.uint16
    assert labels.array.max() > 255


def test_open_rows_worked_by_hand() -> None:
    """Windows of 8 begin at 0, 4, 8, 12; at twice the resolution 16 output rows need the rows 0-8, 7-16, 15-19."""
    recipe = recipe_of(window=[8, 8, 8])
    layout = layout_of(prepared_of((8, 8, 20), Box((0, 0, 0), (16, 16, 40)), (0, 0, 0)), recipe)
    assert layout.turned == (2, 0, 1)
    assert [(rows.start, rows.stop) for rows in layout.needed] == [(0, 9), (7, 17), (15, 20)]
    # At 12 the first block is done and row 7 still needed: 12 + 8 - 7. With overlap, when 12 begins, what was ready at
    # 8 is done, which is nothing: 12 + 8 - 0.
    assert layout.open_rows(overlap=False) == max(8, 12, 16, 13)
    assert layout.open_rows(overlap=True) == 20


class Failing(Random):
    """Fails, or gives what is no number, at its third call."""

    def __init__(self, outputs: int, window: Sequence[int], error: Exception | None) -> None:
        super().__init__(outputs, window)
        self.error = error
        self.calls = 0

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        self.calls += 1
        if self.calls < 3:
            return super().__call__(x_BCDHW)
        if self.error is not None:
            raise self.error
        return super().__call__(x_BCDHW) * float("nan")


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("error", [None, MemoryError("no more")])
def test_an_error_in_either_thread_ends_it(placement: Placement, error: Exception | None) -> None:
    recipe = recipe_of(window=[4, 4, 4])
    prepared = prepared_of((4, 4, 60), Box((0, 0, 0), (4, 4, 60)), (0, 0, 0))
    with pytest.raises(ModelError if error is None else MemoryError, match="no finite" if error is None else "no more"):
        stream(prepared, [Failing(4, (4, 4, 4), error)], recipe, Source(), placement=placement)


def test_a_full_disk_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**given: object) -> object:
        raise OSError(28, "No space left on device", given)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(RefusalError, match=r"no room for a temporary file of 1\.2 GB in .*: No space left") as refused:
        slab.Slab(1000, (100, 1000, 3), in_file=True)
    assert refused.value.code == "memory"


def test_rows_of_a_ring_are_added_averaged_and_cleared() -> None:
    for in_file in (False, True):
        ring = slab.Slab(3, (2, 2, 1), in_file=in_file)
        ones = torch.ones(2, 1, 2, 1)
        ring.add(
            2, (slice(0, 1), slice(0, 2), slice(0, 1)), ones * 6, torch.full((2, 1, 2), 0.5)
        )  # rows 2 and 3: places 2 and 0
        mean = ring.mean(slice(2, 4), (slice(0, 2), slice(1, 2)), torch.full((2, 2, 1), 2.0))
        assert mean.flatten().tolist() == [1.5, 0.0, 1.5, 0.0]
        ring.clear(slice(2, 3))
        mean = ring.mean(slice(2, 4), (slice(0, 2), slice(1, 2)), torch.ones(2, 2, 1))
        assert mean.flatten().tolist() == [0.0, 0.0, 3.0, 0.0]


@pytest.mark.parametrize("fails", [False, True])
def test_torch_keeps_its_threads_and_restoring_has_one(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen: dict[str, set[int]] = {"network": set(), "restore": set()}

    class Counting(Random):
        def __call__(self, x_BCDHW: Tensor) -> Tensor:
            seen["network"].add(torch.get_num_threads())
            if fails and len(seen["restore"]):
                raise MemoryError
            return super().__call__(x_BCDHW)

    def restore_rows(*given: Any, **more: Any) -> None:
        seen["restore"].add(torch.get_num_threads())

    monkeypatch.setattr("volseg.inference.restorer.restore_rows", restore_rows)
    recipe = recipe_of(window=[4, 4, 4])
    prepared = prepared_of((4, 4, 60), Box((0, 0, 0), (4, 4, 60)), (0, 0, 0))
    try:
        with contextlib.suppress(MemoryError):
            stream(prepared, [Counting(4, (4, 4, 4))], recipe, Source(), placement=Placement(overlap=False))
        assert seen == {"network": {3}, "restore": {1}}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_labels_decided_on_the_models_grid_are_put_back_by_the_nearest_voxel() -> None:
    """In a crop of a whole of 9 x 7 x 8; the source is twice as fine, turned, and its outermost voxels are the same."""
    whole, finer, box = (9, 7, 8), (17, 13, 15), Box((2, 0, 1), (6, 7, 5))
    recipe = recipe_of(window=[4, 4, 4])
    engines = [Random(4, recipe.window)]
    tensor = torch.randn((1, *box.shape), generator=torch.Generator().manual_seed(2)) * 3
    axes = AxisMap.between("LSA", "SAR")
    i, j, k = (finer[axes.order.index(axis)] for axis in range(3))
    prepared = Prepared(tensor, axes, Geometry((i, j, k), np.eye(4)), box, zoomed=whole)
    seen, clear = oracle.decided(oracle.whole_logits(tensor, engines, recipe), recipe)
    decided, certain = np.zeros(whole, dtype=np.int64), np.ones(whole, dtype=bool)
    decided[box.slices], certain[box.slices] = seen, clear
    expected, sure = (
        axes.inverse().apply(ndimage.zoom(array, [b / a for a, b in zip(whole, finer, strict=True)], order=0))
        for array in (decided, certain.astype(np.int64))
    )
    assert len(np.unique(expected)) == 4
    for placement in PLACEMENTS:
        labels = stream(prepared, engines, recipe, Source(), placement=placement).mask.array
        assert labels.shape == (i, j, k)
        assert np.array_equal(labels[sure == 1], expected[sure == 1])


@pytest.mark.parametrize("regions", [3, 11])
def test_regions_that_overlap_are_whole_in_layers_and_painted_in_the_recipes_order(regions: int) -> None:
    """On a turned source that is larger than what the network saw, of more regions than a byte has bits too."""
    values = list(range(20, 20 - regions, -1))
    recipe = recipe_of("sigmoid", values, window=[5, 6, 4])
    prepared = prepared_of((9, 7, 10), Box((1, 0, 2), (11, 13, 10)), (2, 1, 0), AxisMap.between("LSA", "SAR"))
    engines = [Random(regions, recipe.window)]
    for placement in PLACEMENTS:
        mask = stream(prepared, engines, recipe, Source(), placement=placement).mask
        logits = oracle.regions_of(prepared, engines, recipe)
        painted = np.zeros(mask.geometry.shape, np.uint8)
        for label, region in zip(recipe.labels, logits, strict=True):
            (listed,) = (each for each in mask.labels if each.value == label.value)
            whole = mask.voxels_of(listed)
            clear = np.abs(region) > oracle.MARGIN
            assert clear.mean() > 0.99
            assert np.array_equal(whole[clear], (region > 0)[clear])
            painted[whole] = label.value
        assert np.array_equal(mask.array, painted)
        assert 1 < len(mask.layers) <= regions
        # Each label's voxels lie in one layer.
        found = [set(np.unique(layer).tolist()) - {0} for layer in mask.layers]
        assert sorted(itertools.chain(*found)) == sorted(values)


def test_regions_apart_have_no_layers() -> None:
    class Halves(Random):
        def __call__(self, x_BCDHW: Tensor) -> Tensor:
            return torch.cat([x_BCDHW - 1, -x_BCDHW - 1], 1).movedim(1, -1)

    recipe = recipe_of("sigmoid", (1, 2), window=[8, 8, 8])
    prepared = prepared_of((8, 8, 8), Box((0, 0, 0), (8, 8, 8)), (0, 0, 0))
    mask = stream(prepared, [Halves(2, recipe.window)], recipe, Source()).mask
    tensor = prepared.tensor_CDHW[0].numpy()
    assert np.array_equal(mask.array, np.where(tensor > 1, 1, np.where(tensor < -1, 2, 0)))
    assert mask.layers == ()
