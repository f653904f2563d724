"""Each loss against numbers worked out by hand, its formula in numpy, or another library's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.conftest import ROOT
from tests.helpers.tiny import tiny_recipe
from volseg.config import Recipe
from volseg.errors import RecipeError
from volseg.training.loss import SegmentationLoss

Array = npt.NDArray[np.float64]

REGIONS: dict[str, Any] = {
    "output": "sigmoid",
    "labels": [
        {"value": 1, "name": "whole", "colour": [1, 2, 3], "members": [1, 2]},
        {"value": 2, "name": "core", "colour": [1, 2, 3], "members": [2]},
    ],
}
SHAPE = (2, 3, 2, 4, 2)
CLASSES: list[tuple[int, ...]] = [(0,), (1,), (2,)]


def logits_and_labels(outputs: int, seed: int = 0) -> tuple[Array, npt.NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    batch, _, *grid = SHAPE
    return rng.normal(0, 2, (batch, outputs, *grid)), rng.integers(0, 3, (batch, 1, *grid)).astype(np.int32)


def one_hot(labels: npt.NDArray[np.int32], groups: list[tuple[int, ...]]) -> Array:
    return np.concatenate([np.isin(labels, group) for group in groups], axis=1).astype(float)


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    result: Array = shifted / shifted.sum(1, keepdims=True)
    return result


def dice_loss(probability: Array, target: Array) -> float:
    """1 minus the mean Dice over the channels, each over the whole batch."""
    axes = (0, 2, 3, 4)
    overlap = 2 * (probability * target).sum(axes)
    return float(np.mean(1 - overlap / (probability.sum(axes) + target.sum(axes))))


def softmax_terms(logits: Array, target: Array) -> tuple[float, float]:
    probability = softmax(logits)
    cross_entropy = -np.mean((target * np.log(probability)).sum(1))
    return dice_loss(probability[:, 1:], target[:, 1:]), float(cross_entropy)


def sigmoid_terms(logits: Array, target: Array) -> tuple[float, float]:
    probability = 1 / (1 + np.exp(-logits))
    binary = target * np.log(probability) + (1 - target) * np.log(1 - probability)
    return dice_loss(probability, target), float(-binary.mean())


def loss_of(recipe_changes: dict[str, Any], logits: list[Array], labels: npt.NDArray[np.int32]) -> float:
    loss = SegmentationLoss(tiny_recipe(**recipe_changes))
    return float(loss([torch.tensor(level, dtype=torch.float32) for level in logits], torch.from_numpy(labels)))


def terms(*given: dict[str, Any], base: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    return {**(base or {}), "training": {"loss": list(given), **training}}


def term(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **more}


def test_a_perfect_prediction_costs_nothing() -> None:
    _, labels = logits_and_labels(3)
    sure = 40 * one_hot(labels, CLASSES) - 20
    assert loss_of({}, [sure], labels) == pytest.approx(0, abs=1e-5)
    assert loss_of(REGIONS, [40 * one_hot(labels, [(1, 2), (2,)]) - 20], labels) == pytest.approx(0, abs=1e-5)
    for kind in ("generalised_dice", "tversky", "focal"):
        assert loss_of(terms(term(kind)), [sure], labels) == pytest.approx(0, abs=1e-5)


def test_softmax_is_dice_of_the_foreground_plus_cross_entropy_of_all() -> None:
    logits, labels = logits_and_labels(3)
    dice, cross_entropy = softmax_terms(logits, one_hot(labels, CLASSES))
    assert loss_of({}, [logits], labels) == pytest.approx(dice + cross_entropy, abs=1e-5)


def test_the_weights_of_the_terms() -> None:
    logits, labels = logits_and_labels(3)
    dice, cross_entropy = softmax_terms(logits, one_hot(labels, CLASSES))
    weights = terms(term("dice", weight=0.5), term("cross_entropy", weight=3.0))
    assert loss_of(weights, [logits], labels) == pytest.approx(0.5 * dice + 3 * cross_entropy, abs=1e-5)
    assert loss_of(terms(term("cross_entropy")), [logits], labels) == pytest.approx(cross_entropy, abs=1e-5)


def test_weights_as_models_of_version_0_1_hold_them() -> None:
    logits, labels = logits_and_labels(3)
    dice, cross_entropy = softmax_terms(logits, one_hot(labels, CLASSES))
    content = tiny_recipe().model_dump(mode="json")
    del content["training"]["loss"]
    content["training"] |= {"dice_weight": 0.5, "cross_entropy_weight": 3.0}
    old = Recipe.model_validate(content)
    assert old.training == tiny_recipe(**terms(term("dice", weight=0.5), term("cross_entropy", weight=3.0))).training
    content["training"] |= {"dice_weight": 0.0}
    assert (
        Recipe.model_validate(content).training.loss
        == tiny_recipe(**terms(term("cross_entropy", weight=3.0))).training.loss
    )
    bundled = json.loads((ROOT / "volseg" / "models" / "bundled" / "hippocampus" / "model.json").read_text())
    loaded = SegmentationLoss(Recipe.model_validate(bundled["recipe"]))
    value = loaded([torch.tensor(logits, dtype=torch.float32)], torch.from_numpy(labels))
    assert float(value) == pytest.approx(dice + cross_entropy, abs=1e-5)


def test_regions_overlap_and_each_has_its_own_binary_cross_entropy() -> None:
    logits, labels = logits_and_labels(2)
    dice, cross_entropy = sigmoid_terms(logits, one_hot(labels, [(1, 2), (2,)]))
    assert loss_of(REGIONS, [logits], labels) == pytest.approx(dice + cross_entropy, abs=1e-5)


def test_one_region_alone() -> None:
    logits, labels = logits_and_labels(1)
    only = {"output": "sigmoid", "labels": [{"value": 2, "name": "core", "colour": [1, 2, 3]}]}
    dice, cross_entropy = sigmoid_terms(logits, one_hot(labels, [(2,)]))
    assert loss_of(only, [logits], labels) == pytest.approx(dice + cross_entropy, abs=1e-5)


def two_levels(changes: dict[str, Any]) -> tuple[Array, Array, npt.NDArray[np.int32], float, float]:
    """Logits at full and half resolution, labels, and the sum of Dice and cross-entropy of each."""
    outputs = 2 if changes else 3
    rng = np.random.default_rng(1)
    logits, _ = logits_and_labels(outputs)
    labels = rng.integers(0, 3, (2, 1, 2, 4, 2)).astype(np.int32)
    lower = rng.normal(0, 2, (2, outputs, 1, 2, 1))
    groups: list[tuple[int, ...]] = [(1, 2), (2,)] if changes else CLASSES
    both = sigmoid_terms if changes else softmax_terms
    target = one_hot(labels, groups)
    # The share of each class among the 2 x 2 x 2 voxels that one voxel below covers.
    share = target.reshape(2, outputs, 1, 2, 2, 2, 1, 2).mean((3, 5, 7))
    return logits, lower, labels, sum(both(logits, target)), sum(both(lower, share))


@pytest.mark.parametrize("changes", [{}, REGIONS])
def test_deep_supervision_weighs_each_level_half_of_the_one_above(changes: dict[str, Any]) -> None:
    logits, lower, labels, first, second = two_levels(changes)
    assert loss_of(changes, [logits, lower], labels) == pytest.approx(2 / 3 * first + 1 / 3 * second, abs=1e-5)


def test_many_classes_with_gaps_between_their_values_and_blocks_of_three() -> None:
    values = [2, 5, 6, 40, 300]
    groups: list[tuple[int, ...]] = [(0,), *((value,) for value in values)]
    rng = np.random.default_rng(3)
    labels = rng.choice([0, *values, 77], (2, 1, 6, 3, 4)).astype(np.int32)  # 77 is none of them
    logits, lower = rng.normal(0, 2, (2, 6, 6, 3, 4)), rng.normal(0, 2, (2, 6, 2, 1, 2))
    target = one_hot(labels, groups)
    share = target.reshape(2, 6, 2, 3, 1, 3, 2, 2).mean((3, 5, 7))
    expected = []
    for values_, t in ((logits, target), (lower, share)):
        p = softmax(values_)
        expected.append(dice_loss(p[:, 1:], t[:, 1:]) - (t * np.log(p)).sum() / t.sum())
    named = [{"value": value, "name": f"label {value}", "colour": [1, 2, 3]} for value in values]
    found = loss_of({"labels": named}, [logits, lower], labels)
    assert found == pytest.approx(2 / 3 * expected[0] + 1 / 3 * expected[1], abs=1e-5)


def test_deep_supervision_weights_of_ones_own() -> None:
    logits, lower, labels, first, second = two_levels({})
    own = {"network": {"features": [4, 8, 8, 8]}, "training": {"deep_supervision_weights": [3.0, 1.0]}}
    assert loss_of(own, [logits, lower], labels) == pytest.approx(0.75 * first + 0.25 * second, abs=1e-5)
    alone = {"network": {"features": [4, 8, 8, 8]}, "training": {"deep_supervision_weights": [1.0, 0.0]}}
    assert loss_of(alone, [logits, lower], labels) == pytest.approx(first, abs=1e-5)


# Two voxels: the first is class 1 and has p = (1/2, 1/4, 1/4), the second is class 0 and has p = (1/4, 1/2, 1/4).
PAIR = np.log(np.array([[0.5, 0.25], [0.25, 0.5], [0.25, 0.25]])).reshape(1, 3, 2, 1, 1)
PAIR_LABELS = np.array([1, 0], dtype=np.int32).reshape(1, 1, 2, 1, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Both voxels have p = 1/4 in their class.
        (terms(term("cross_entropy")), np.log(4)),
        (terms(term("focal")), 0.75**2 * np.log(4)),
        (terms(term("focal", gamma=1.0)), 0.75 * np.log(4)),
        # Class 1: I = 1/4, P = 3/4, T = 1; class 2: I = 0, P = 1/2, T = 0; class 0: I = 1/4, P = 3/4, T = 1.
        (terms(term("dice")), ((1 - 0.5 / 1.75) + 1) / 2),
        (terms(term("dice", background=True)), (2 * (1 - 0.5 / 1.75) + 1) / 3),
        # a = 0.3 times 1/2, b = 0.7 times 3/4; class 2: 0 over 0.3 times 1/2.
        (terms(term("tversky")), ((1 - 0.25 / (0.25 + 0.15 + 0.525)) + 1) / 2),
        (terms(term("tversky", false_positives=0.5, false_negatives=0.5)), ((1 - 0.5 / 1.75) + 1) / 2),
        (
            terms(term("tversky", false_positives=1.0, false_negatives=2.0)),
            ((1 - 0.25 / (0.25 + 0.5 + 1.5)) + 1) / 2,
        ),
        # Classes 1 and 2 weigh the same: the absent one as the heaviest present one.
        (terms(term("generalised_dice")), 1 - 0.5 / (1.75 + 0.5)),
        (terms(term("generalised_dice", background=True)), 1 - 1.0 / (1.75 + 1.75 + 0.5)),
        # The second voxel, class 0, weighs a third.
        (terms(term("cross_entropy"), class_weights=[1, 3, 7]), np.log(4)),
        (terms(term("dice"), class_weights=[9, 3, 1]), (3 * (1 - 0.5 / 1.75) + 1) / 4),
    ],
)
def test_two_voxels_by_hand(changes: dict[str, Any], expected: float) -> None:
    assert loss_of(changes, [PAIR], PAIR_LABELS) == pytest.approx(expected, abs=1e-4)


def test_class_weights_are_those_of_torch() -> None:
    logits, labels = logits_and_labels(3)
    weights = [1.0, 2.0, 5.0]
    expected = functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels[:, 0]).long(), torch.tensor(weights).double()
    )
    given = terms(term("cross_entropy"), class_weights=weights)
    assert loss_of(given, [logits], labels) == pytest.approx(float(expected), abs=1e-5)


def test_a_sigmoid_is_binary_focal_loss() -> None:
    logits, labels = logits_and_labels(2)
    target = one_hot(labels, [(1, 2), (2,)])
    right = np.where(target == 1, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))
    expected = float(np.mean(-((1 - right) ** 2) * np.log(right)))
    assert loss_of(terms(term("focal"), base=REGIONS), [logits], labels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("over", ["batch", "sample"])
def test_generalised_dice_and_tversky_are_their_formulas(over: str) -> None:
    logits, labels = logits_and_labels(3, seed=4)
    p, t = softmax(logits), one_hot(labels, CLASSES)
    parts = [(p, t)] if over == "batch" else [(p[n : n + 1], t[n : n + 1]) for n in (0, 1)]
    generalised, tversky = [], []
    for probability, target in parts:
        both, marked, real = ((x).sum((0, 2, 3, 4)) for x in (probability * target, probability, target))
        generalised.append(1 - 2 * (both / real**2).sum() / ((marked + real) / real**2).sum())
        tversky.append(np.mean(1 - both / (both + 0.3 * (marked - both) + 0.7 * (real - both))))
    for kind, expected in (("generalised_dice", generalised), ("tversky", tversky)):
        given = terms(term(kind, over=over, background=True))
        assert loss_of(given, [logits], labels) == pytest.approx(float(np.mean(expected)), abs=2e-5)


def test_a_patch_of_its_own_and_a_batch_differ() -> None:
    logits, labels = logits_and_labels(3)
    labels[0] = 0
    batch, sample = (loss_of(terms(term("dice", over=over)), [logits], labels) for over in ("batch", "sample"))
    each = [loss_of(terms(term("dice")), [logits[n : n + 1]], labels[n : n + 1]) for n in (0, 1)]
    assert sample == pytest.approx(sum(each) / 2, abs=1e-5)
    assert abs(batch - sample) > 0.02


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "dice", "generalised_dice", "tversky"])
@pytest.mark.parametrize("base", [{}, REGIONS])
def test_an_ignored_voxel_counts_for_nothing(kind: str, base: dict[str, Any]) -> None:
    outputs = 2 if base else 3
    logits, labels = logits_and_labels(outputs)
    changes = terms(term(kind), base=base, ignored_label=9, boundary_weight=0.0)
    labels[:, :, 1] = 9
    alone = loss_of(terms(term(kind), base=base), [logits[:, :, :1]], labels[:, :, :1])
    assert loss_of(changes, [logits], labels) == pytest.approx(alone, abs=1e-5)
    tensor = torch.tensor(logits, requires_grad=True)
    SegmentationLoss(tiny_recipe(**changes))([tensor], torch.from_numpy(labels)).backward()
    assert tensor.grad is not None
    assert float(tensor.grad[:, :, 1].abs().max()) == 0
    assert float(tensor.grad[:, :, 0].abs().max()) > 0


def test_a_lower_level_counts_the_share_that_was_judged() -> None:
    labels = np.array([[9, 1], [9, 9]], dtype=np.int32).reshape(1, 1, 2, 2, 1)
    full, lower = np.zeros((1, 3, 2, 2, 1)), np.log([0.5, 0.25, 0.25]).reshape(1, 3, 1, 1, 1)
    one = {"network": {"features": [4, 8, 8, 8]}, "training": {"loss": [term("cross_entropy")], "ignored_label": 9}}
    # One voxel of four was judged; above it p = 1/3 in its class, below 1/4.
    assert loss_of(one, [full, lower], labels) == pytest.approx(2 / 3 * np.log(3) + 1 / 3 * np.log(4), abs=1e-5)


EVERY: list[dict[str, Any]] = [
    term("cross_entropy"),
    term("focal", gamma=1.0),
    term("focal"),
    *(term(kind, over=over) for kind in ("dice", "generalised_dice", "tversky") for over in ("batch", "sample")),
]


@pytest.mark.parametrize("given", EVERY, ids=str)
@pytest.mark.parametrize("base", [{}, REGIONS])
@pytest.mark.parametrize("fill", [0, 2, 9])
@pytest.mark.parametrize("size", [0.0, 100.0])
def test_value_and_gradient_are_finite_where_labels_are_absent(
    given: dict[str, Any], base: dict[str, Any], fill: int, size: float
) -> None:
    """Background alone, one label alone, nothing judged at all; a network that knows nothing, and one that is sure."""
    loss = SegmentationLoss(tiny_recipe(**terms(given, base=base, ignored_label=9, boundary_weight=2.0)))
    start = torch.zeros((1, 2 if base else 3, 2, 3, 4))
    start[:, 0] = size
    logits = start.requires_grad_()
    value = loss([logits], torch.full((1, 1, 2, 3, 4), fill, dtype=torch.int32))
    value.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(logits.grad).all())
    if fill != 9 and size == 0:
        assert bool((logits.grad != 0).any())


@pytest.mark.parametrize("given", EVERY, ids=str)
@pytest.mark.parametrize("base", [{}, REGIONS])
def test_going_down_the_gradient_lowers_the_loss(given: dict[str, Any], base: dict[str, Any]) -> None:
    logits, labels = logits_and_labels(2 if base else 3)
    loss = SegmentationLoss(tiny_recipe(**terms(given, base=base)))
    tensor = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    values = []
    for _ in range(30):
        value: Tensor = loss([tensor], torch.from_numpy(labels))
        values.append(float(value.detach()))
        (gradient,) = torch.autograd.grad(value, tensor)
        tensor = (tensor - gradient / gradient.abs().max().clamp(min=1e-9)).detach().requires_grad_()
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"loss": []}, "loss"),
        ({"loss": [{"kind": "lovasz"}]}, "loss.0: .*lovasz.*cross_entropy"),
        ({"loss": [{"kind": "dice", "gamma": 2}]}, "loss.0.dice.gamma: no such key"),
        ({"loss": [{"kind": "focal", "gamma": 0.5}]}, "gamma"),
        ({"class_weights": [1, 2]}, "class_weights has 2 entries for 3 outputs"),
        ({"class_weights": [0, 0, 0]}, "class_weights are all 0"),
        ({"deep_supervision_weights": [1, 1]}, "deep_supervision_weights has 2 entries for 1 supervised"),
        ({"ignored_label": 2}, "ignored_label 2 is one of the values"),
    ],
)
def test_a_loss_that_can_t_be_is_refused(training: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        tiny_recipe(training=training)
