"""Maps are those of the slow way to half a step, however blocks are cut short and however the scan is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
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
from volseg.inference import decide
from volseg.inference import maps as module
from volseg.inference.layout import Layout
from volseg.inference.maps import MapKinds, Maps
from volseg.inference.probabilities import NEGLECTED, SigmoidOutput, SoftmaxOutput, matter
from volseg.inference.stream import stream
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box
from volseg.resample import resampled, straight_grid
from volseg.volume import Source

#: Half a step is rounding; what is left out and single precision add less than the rest.
HALF = 0.5 + 0.02


def everything(recipe: Recipe) -> MapKinds:
    return MapKinds(frozenset(label.value for label in recipe.labels), entropy=True)


def check(maps: Maps, expected: npt.NDArray[np.float64]) -> None:
    assert len(maps.maps) == len(expected)
    for chosen, wanted in zip(maps.maps, expected, strict=True):
        found = maps.values(chosen)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= HALF * chosen.slope, chosen.name


sizes = st.tuples(*(st.integers(1, 19),) * 3)
larger = st.tuples(*(st.integers(1, 40),) * 3)


@settings(max_examples=25)
@given(
    shape=sizes,
    seen=larger,
    start=st.tuples(*(st.integers(0, 19),) * 3),
    around=st.tuples(*(st.integers(0, 19),) * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    nearest=st.sampled_from([None, 0, 1, 2]),
    output=st.sampled_from(["softmax", "sigmoid"]),
    mirrored=st.sampled_from([(), (1,)]),
    folds=st.integers(1, 2),
    features=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_maps_are_those_of_the_slow_way(
    shape: tuple[int, int, int],
    seen: tuple[int, int, int],
    start: tuple[int, int, int],
    around: tuple[int, int, int],
    orientation: str,
    nearest: int | None,
    output: str,
    mirrored: tuple[int, ...],
    folds: int,
    features: int,
    seed: int,
) -> None:
    window = (6, 4, 8)
    recipe = recipe_of(output, window=list(window))
    engines = [Random(recipe.outputs, window, seed + fold, features) for fold in range(folds)]
    prepared = prepared_of(shape, Box(start, seen), around, AxisMap.between("RAS", orientation), nearest, seed)
    streamed = stream(prepared, engines, recipe, Source(), mirrored=mirrored, kinds=everything(recipe))
    assert streamed.maps is not None
    check(streamed.maps, oracle.maps_of(prepared, engines, recipe, mirrored))


@settings(max_examples=15)
@given(zoomed=sizes, size=larger, orientation=st.sampled_from(ORIENTATIONS), cut=st.booleans(), seed=st.integers(0, 9))
def test_where_labels_are_put_back_by_the_nearest_voxel(
    zoomed: tuple[int, int, int], size: tuple[int, int, int], orientation: str, cut: bool, seed: int
) -> None:
    recipe = recipe_of(window=[4, 4, 4])
    axes = AxisMap.between("RAS", orientation)
    d, h, w = (max(1, length - 2 * cut) for length in zoomed)
    prepared = prepared_of((d, h, w), Box((0, 0, 0), size), (0, 0, 0), axes, seed=seed)
    start = tuple(min(int(cut), length - inner) for length, inner in zip(zoomed, (d, h, w), strict=True))
    prepared = replace(prepared, crop=Box((start[0], start[1], start[2]), (d, h, w)), zoomed=zoomed)
    engines = [Random(recipe.outputs, (4, 4, 4), seed)]
    streamed = stream(prepared, engines, recipe, Source(), kinds=everything(recipe))
    assert streamed.maps is not None
    check(streamed.maps, oracle.maps_of(prepared, engines, recipe))
    # Where one label is certain, the map's largest value is that label's: both took the same way back.
    shown = np.stack([streamed.maps.values(chosen) for chosen in streamed.maps.maps[:-1]])
    order = np.sort(shown, 0)
    clear = order[-1] - order[-2] > 0.02
    values = np.array([chosen.value for chosen in streamed.maps.maps[:-1]])
    assert np.array_equal(values[shown.argmax(0)][clear], streamed.mask.array[clear])


def direct(logits_CDHW: Tensor, shape: tuple[int, int, int], recipe: Recipe) -> Maps:
    """Maps of logits that are given."""
    d, h, w = logits_CDHW.shape[1:]
    prepared = Prepared(torch.zeros(1, d, h, w), AxisMap.between("RAS", "RAS"), Geometry(shape, np.eye(4)))
    layout = Layout((d, h, w), shape, (d, h, w), 0.5)
    maps = Maps(recipe, layout, prepared, everything(recipe))
    values = logits_CDHW.permute(1, 2, 3, 0).permute(*layout.turned, 3).contiguous()
    for row, (_, into) in enumerate(layout.axes[0].blocks):
        maps.add(values[into], row)
    maps.finish()
    return maps


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("scale", [30, 1000])
@pytest.mark.parametrize("classes", [2, 40])
def test_blocks_that_are_cut_short_are_right(
    output: str, scale: float, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smooth logits far apart: most classes of most blocks are left out, and some blocks altogether."""
    recipe = recipe_of(output, labels=range(1, classes + (output == "sigmoid")))
    noise = np.random.default_rng(classes).normal(size=(classes, 30, 34, 38)).astype(np.float32)
    logits = torch.from_numpy(ndimage.gaussian_filter(noise, (0, 6, 6, 6)) * scale * 30)
    if scale == 1000:
        logits[:, :, :, 16:] -= 1e5  # certain there, and a steep edge
        logits[1, :, :, 16:] += 2e5
    worked: list[int] = []
    whole = decide.block_logits

    def counting(*given: object) -> Tensor:
        worked.append(len(given[-1]))  # type: ignore[arg-type]
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "block_logits", counting)
    maps = direct(logits, (37, 31, 70), recipe)
    check(maps, oracle.with_entropy(oracle.resized(logits, (37, 31, 70)), output))
    if scale == 1000:
        blocks = np.prod([len(axis.blocks) for axis in maps.layout.axes])
        assert len(worked) < 0.8 * blocks


def test_steps_that_bounds_settle_are_written_without_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "block_logits", None)
    logits = torch.full((3, 4, 5, 6), -3.0)
    logits[1] = 10
    maps = direct(logits, (9, 5, 18), recipe_of(labels=(1, 2)))
    assert [np.unique(maps.values(chosen)).tolist() for chosen in maps.maps] == [[0], [1], [0], [0]]
    # Constant, but at an even chance: p is 1/2 and 1/2, which is 127.5 steps. Rounding decides, so it is worked out.
    with pytest.raises(TypeError):
        direct(torch.zeros(2, 4, 5, 6), (4, 5, 6), recipe_of(labels=(1,)))


#: Lowest logit, range and place in it, of each class: also so far apart that exponentials are 0 or infinite.
bounded = st.sampled_from([1.0, 50.0]).flatmap(
    lambda scale: st.lists(
        st.tuples(st.floats(-20 * scale, 20 * scale), st.floats(0, 20 * scale), st.floats(0, 1)), min_size=2, max_size=9
    )
)


@given(bounded=bounded)
def test_probabilities_and_entropy_lie_within_their_bounds(bounded: list[tuple[float, float, float]]) -> None:
    low, width, share = torch.tensor(bounded, dtype=torch.float64).T
    inside = low + width * share
    for output, name in ((SoftmaxOutput(), "softmax"), (SigmoidOutput(), "sigmoid")):
        lower, upper = output.between(low, low + width)
        *p, bits = oracle.with_entropy(inside[:, None, None, None], name)[..., 0, 0, 0]
        assert (np.array(p) >= lower.numpy() - 1e-12).all()
        assert (np.array(p) <= upper.numpy() + 1e-12).all()
        assert bits <= output.entropy_below(lower, upper).item() + 1e-9
        left_out = ~matter(upper)
        assert np.array(p)[left_out.numpy()].sum() <= NEGLECTED * (1 + 1e-6)
        assert output.probabilities(inside).tolist() == pytest.approx(p, abs=1e-9)
        assert output.entropy(inside).item() == pytest.approx(bits, abs=1e-9)


def test_what_there_is_and_what_a_step_is_worth() -> None:
    recipe = recipe_of(labels=(1, 300))
    logits = torch.zeros(3, 4, 5, 6)
    listed = direct(logits, (4, 5, 6), recipe).maps
    assert [(each.name, each.value, each.outside) for each in listed] == [
        ("background", 0, 255),
        ("label 1", 1, 0),
        ("label 300", 300, 0),
        ("entropy", None, 0),
    ]
    assert [each.slope * 255 for each in listed] == pytest.approx([1, 1, 1, np.log2(3)])
    assert listed[1].description == "probability of label 1 (softmax)"
    regions = direct(torch.zeros(2, 4, 5, 6), (4, 5, 6), recipe_of("sigmoid", labels=(2, 1)))
    assert [(each.name, each.value) for each in regions.maps] == [("label 2", 2), ("label 1", 1), ("entropy", None)]
    assert regions.values(regions.maps[-1])[0, 0, 0] == pytest.approx(2)  # bits: two regions, each undecided
    assert not MapKinds()


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (MapKinds(frozenset({7})), ["background", "label 7"]),
        (MapKinds(entropy=True), ["entropy"]),
    ],
)
def test_some_maps_alone_are_what_they_are_among_all(kinds: MapKinds, names: Sequence[str]) -> None:
    recipe = recipe_of(window=[4, 4, 4])
    prepared = prepared_of((5, 6, 30), Box((0, 2, 0), (20, 12, 60)), (3, 0, 0))
    engines = [Random(recipe.outputs, (4, 4, 4))]
    whole = stream(prepared, engines, recipe, Source(), kinds=everything(recipe)).maps
    some = stream(prepared, engines, recipe, Source(), kinds=kinds).maps
    assert whole is not None
    assert some is not None
    assert [each.name for each in some.maps] == names
    by_name = {each.name: whole.values(each) for each in whole.maps}
    for each in some.maps:
        assert np.array_equal(some.values(each), by_name[each.name])


def test_maps_are_the_same_in_every_placement_and_change_no_label() -> None:
    recipe = recipe_of(window=[4, 4, 4])
    prepared = prepared_of((5, 6, 40), Box((1, 0, 2), (9, 12, 77)), (0, 2, 1), AxisMap.between("RAS", "SLP"))
    engines = [Random(recipe.outputs, (4, 4, 4))]
    plain = stream(prepared, engines, recipe, Source())
    assert plain.maps is None
    found = []
    for placement in PLACEMENTS:
        streamed = stream(prepared, engines, recipe, Source(), placement=placement, kinds=everything(recipe))
        assert streamed.mask.array.tobytes() == plain.mask.array.tobytes()
        assert streamed.quality == plain.quality
        assert streamed.maps is not None
        found.append([streamed.maps.values(each).tobytes() for each in streamed.maps.maps])
    assert found[1:] == found[:1] * 3


def test_slabs_are_a_few_slices_each() -> None:
    recipe = recipe_of(labels=(1,))
    prepared = prepared_of((5, 6, 20), Box((0, 0, 40), (5, 6, 40)), (0, 0, 50))
    maps = stream(prepared, [Random(2, recipe.window)], recipe, Source(), kinds=everything(recipe)).maps
    assert maps is not None
    depths = [slab.shape for slab in maps.slabs(maps.maps[1])]
    assert sum(k for _, _, k in depths) == 130
    assert max(k for _, _, k in depths) <= 16


def test_maps_of_a_tilted_scan_lie_on_its_own_slices() -> None:
    """As `resampled` puts the whole map there, and the mask too."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.7
    stored = Geometry((9, 11, 30), affine)
    straight = straight_grid(stored)
    recipe = recipe_of(window=[4, 4, 4])
    shape = straight.shape
    tensor = torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))
    prepared = Prepared(tensor, AxisMap.between("RAS", "RAS"), straight)
    maps = stream(prepared, [Random(4, (4, 4, 4))], recipe, Source(), kinds=everything(recipe)).maps
    assert maps is not None
    for each in maps.maps:
        whole = resampled(maps.values(each), straight, stored, order=0, fill=each.outside * each.slope)
        assert np.array_equal(maps.values(each, stored), whole)


class Full:
    """A file on a full disk."""

    closed = False

    def seek(self, *_: int) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    def write(self, _: bytes) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(window=[4, 4, 4])
    prepared = prepared_of((5, 6, 30), Box((0, 0, 0), (5, 6, 30)), (0, 0, 0))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: Full())
    monkeypatch.setattr(module, "SMALL", 100)
    with pytest.raises(RefusalError, match=r"no room for probabilities in a temporary file in .*: No space") as refused:
        stream(prepared, [Random(4, (4, 4, 4))], recipe, Source(), kinds=everything(recipe))
    assert refused.value.code == "memory"


def test_logits_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ModelError, match="no finite numbers"):
        direct(torch.full((2, 4, 5, 6), float("nan")), (4, 5, 6), recipe_of(labels=(1,)))
