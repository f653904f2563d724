"""Numbers on quality by hand, and flags: for each a case that raises it, and one that doesn't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.streams import Random, prepared_of, recipe_of
from volseg.geometry import AxisMap, Geometry
from volseg.inference import quality
from volseg.inference.decide import Sigmoid, Softmax
from volseg.inference.engines.head import Head
from volseg.inference.probabilities import SigmoidOutput, SoftmaxOutput
from volseg.inference.quality import Agreement, Confidence, border_sides, quality_flags
from volseg.inference.stream import stream
from volseg.preprocess.grid import Box
from volseg.results.case import LabelResult
from volseg.volume import Label, LabelVolume, Source

EVERY = torch.ones(3, dtype=torch.bool)


def softmax() -> Softmax:
    return Softmax(EVERY)


def test_confidence_by_hand() -> None:
    third, ninth = np.log(3), np.log(9)
    # Of class 1: 3 / (3 + 1 + 1) and 9 / (9 + 1 + 1); the background is none of them, and class 2 nowhere the largest.
    logits = torch.tensor([[0, third, 0], [0, ninth, 0], [5, 0, 0]]).reshape(3, 1, 1, 3)
    confidence = Confidence(softmax(), SoftmaxOutput(), 3)
    confidence.add(logits[:1], 1)
    confidence.add(logits[1:], 0)
    assert confidence.means()[1] == pytest.approx((3 / 5 + 9 / 11) / 2, abs=1e-4)
    assert confidence.means()[2] is None
    # Of regions, the one that is painted: sigmoid of 1 and of 2.
    regions = Confidence(Sigmoid(EVERY[:2]), SigmoidOutput(), 2)
    regions.add(torch.tensor([[3.0, 1.0], [2.0, -1.0], [-1.0, -1.0]]).reshape(3, 1, 1, 2), 0)
    means = regions.means()
    assert means[1:] == [pytest.approx(0.8808, abs=1e-4), pytest.approx(0.7311, abs=1e-4)]


def test_confidence_does_not_depend_on_the_order_of_rows() -> None:
    logits = torch.randn((40, 3, 4, 3), generator=torch.Generator().manual_seed(1))
    found = []
    for order in (range(40), reversed(range(40))):
        confidence = Confidence(softmax(), SoftmaxOutput(), 3)
        for row in order:
            confidence.add(logits[row : row + 1], row)
        found.append(confidence.means())
    assert found[0] == found[1]


@pytest.mark.parametrize(("labels", "every"), [(range(1, 4), 1), (range(1, 40), 2)])
def test_confidence_of_a_scan_is_that_of_the_model_s_grid(labels: range, every: int) -> None:
    """Each voxel counts once, whatever rows blocks share; of many classes, every second along each axis does."""
    recipe = recipe_of(labels=labels, window=[32, 6, 6])
    prepared = prepared_of((32, 6, 6), Box((0, 0, 0), (64, 12, 12)), (0, 0, 0))
    engine = Random(recipe.outputs, (32, 6, 6))
    streamed = stream(prepared, [engine], recipe, Source())
    logits = engine(prepared.tensor_CDHW[None])[0].double()
    if every == 2:
        # Blocks of 16 source rows need the model's rows 0 to 9, then those behind them that are new: 9 to 17, ...
        starts = [0, 9, 17, 25]
        rows = [row for a, b in zip(starts, [*starts[1:], 32], strict=True) for row in range(a, b, 2)]
        logits = logits[rows, ::2, ::2]
    p = logits.softmax(-1)
    winner = p.argmax(-1)
    for number, label in enumerate(recipe.labels, 1):
        here = winner == number
        expected = p[here].amax(-1).mean().item() if here.any() else None
        assert streamed.quality[label.value].confidence == (
            None if expected is None else pytest.approx(expected, abs=1e-3)
        )


def test_agreement_by_hand() -> None:
    """Windows of 4 x 4 x 4: the middle 2 x 2 x 2 counts. Passes say 1 in 8, 6 and 0 of these."""
    agreement = Agreement(softmax(), 3, (4, 4, 4), 3)
    place = (slice(2, 6), slice(0, 4), slice(0, 4))
    for count in (8, 6, 0):
        logits = torch.zeros(4, 4, 4, 3)
        logits[..., 0] = 1
        middle = torch.zeros(8)
        middle[:count] = 2
        logits[1:3, 1:3, 1:3, 1] = middle.view(2, 2, 2)
        agreement.add(place, logits, None)
    assert agreement.dice()[1] == pytest.approx(2 * (6 + 0) / (8 + 6 + 8 + 0), abs=1e-4)
    assert agreement.dice()[2] is None


def test_agreement_of_interleaved_windows_and_of_features() -> None:
    head = Head(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([0.0, -1.0, -3.0]))  # 1 above 1, 2 above 2
    agreement = Agreement(softmax(), 3, (2, 2, 2), 2)
    places = [(slice(start, start + 2), slice(0, 2), slice(0, 2)) for start in (0, 1)]
    for values in ((1.5, 2.5), (1.5, 0.5)):
        for place, value in zip(places, values, strict=True):
            agreement.add(place, torch.full((2, 2, 2, 1), value), head)
    assert agreement.dice()[1:3] == [1.0, 0.0]


def test_one_pass_has_nothing_to_agree_with() -> None:
    recipe = recipe_of(window=[4, 4, 4])
    prepared = prepared_of((5, 6, 9), Box((0, 0, 0), (5, 6, 9)), (0, 0, 0))
    engines = [Random(4, (4, 4, 4), seed) for seed in (0, 1)]
    alone = stream(prepared, engines[:1], recipe, Source())
    assert {found.agreement for found in alone.quality.values()} == {None}
    twice = stream(prepared, engines[:1] * 2, recipe, Source())
    assert {found.agreement for found in twice.quality.values()} == {1.0}
    folds = stream(prepared, engines, recipe, Source())
    assert all(0 < (found.agreement or 0) < 0.9 for found in folds.quality.values())
    mirrored = stream(prepared, engines[:1], recipe, Source(), mirrored=(0,))
    assert all(0 < (found.agreement or 0) < 0.9 for found in mirrored.quality.values())


def mask(orientation: str = "LPS") -> LabelVolume:
    """Label 1 in the middle, 2 at the first index of i and 3 in the last corner."""
    array = np.zeros((5, 6, 7), np.uint8)
    array[2, 3, 3] = 1
    array[0, 3, 3] = 2
    array[4, 5, 6] = 3
    axes = AxisMap.between("RAS", orientation)
    geometry = Geometry((5, 6, 7), axes.matrix((5, 6, 7))[:, :])
    labels = tuple(Label(value=value, name=str(value), colour=(0, 0, 0)) for value in (1, 2, 3))
    return LabelVolume(array, geometry, labels)


def test_sides_of_the_scan_that_labels_touch() -> None:
    assert mask("RAS").geometry.orientation == "RAS"
    assert border_sides(mask("RAS")) == {2: "L", 3: "RAS"}
    assert mask("LPS").geometry.orientation == "LPS"
    assert border_sides(mask("LPS")) == {2: "R", 3: "LPS"}
    # One slice is both the first and the last.
    single = LabelVolume(np.ones((1, 3, 3), np.uint8), Geometry((1, 3, 3), np.eye(4)), mask().labels)
    assert border_sides(single) == {1: "LRPAIS"}


def found(**changes: Any) -> LabelResult:
    good = LabelResult(value=1, name="liver", volume_ml=1500.0, voxels=9, confidence=0.95, agreement=0.95)
    return good.model_copy(update=changes)


def test_nothing_unusual_raises_no_flag() -> None:
    assert quality_flags([found()], None) == []
    assert quality_flags([found()], {"liver": (900.0, 2000.0)}) == []
    assert quality_flags([found(confidence=None, agreement=None)], {"spleen": (1.0, 2.0)}) == []
    edges = {"confidence": quality.LOW_CONFIDENCE, "agreement": quality.LOW_AGREEMENT}
    assert quality_flags([found(volume_ml=2500.0, **edges)], {"liver": (900.0, 2000.0)}) == []


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"confidence": 0.79}, "low-confidence: liver (0.79); "),
        ({"agreement": 0.5}, "passes-differ: liver (0.50); "),
        ({"volume_ml": 2501.0}, "unusual-volume: liver (2501 ml, in training 900 to 2000 ml); "),
        ({"volume_ml": 719.0}, "unusual-volume: liver (719 ml, in training 900 to 2000 ml); "),
        ({"volume_ml": 0.0}, "unusual-volume: liver (0 ml, in training 900 to 2000 ml); "),
        ({"touches_border": ["R", "S"]}, "touches-border: liver (RS); may be cut off there"),
    ],
)
def test_each_flag(changes: dict[str, Any], flag: str) -> None:
    (said,) = quality_flags([found(**changes), found(name="spleen")], {"liver": (900.0, 2000.0)})
    assert said.startswith(flag)


def test_a_flag_names_a_few_labels() -> None:
    many = [found(name=f"rib {number}", touches_border=["I"]) for number in range(20)]
    (said,) = quality_flags(many, None)
    assert said.startswith("touches-border: rib 0 (I), rib 1 (I), ")
    assert "rib 5 (I) and 14 more labels; may be" in said
    assert "rib 6" not in said
