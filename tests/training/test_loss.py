"""The loss against its formula, written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.tiny import tiny_recipe
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


def logits_and_labels(outputs: int, seed: int = 0) -> tuple[Array, npt.NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    batch, _, *grid = SHAPE
    return rng.normal(0, 2, (batch, outputs, *grid)), rng.integers(0, 3, (batch, 1, *grid)).astype(np.int32)


def one_hot(labels: npt.NDArray[np.int32], groups: list[tuple[int, ...]]) -> Array:
    return np.concatenate([np.isin(labels, group) for group in groups], axis=1).astype(float)


def dice_loss(probability: Array, target: Array) -> float:
    """1 minus the mean Dice over the channels, each over the whole batch."""
    axes = (0, 2, 3, 4)
    overlap = 2 * (probability * target).sum(axes)
    return float(np.mean(1 - overlap / (probability.sum(axes) + target.sum(axes))))


def softmax_terms(logits: Array, target: Array) -> tuple[float, float]:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probability = shifted / shifted.sum(1, keepdims=True)
    cross_entropy = -np.mean((target * np.log(probability)).sum(1))
    return dice_loss(probability[:, 1:], target[:, 1:]), float(cross_entropy)


def sigmoid_terms(logits: Array, target: Array) -> tuple[float, float]:
    probability = 1 / (1 + np.exp(-logits))
    binary = target * np.log(probability) + (1 - target) * np.log(1 - probability)
    return dice_loss(probability, target), float(-binary.mean())


def loss_of(recipe_changes: dict[str, Any], logits: list[Array], labels: npt.NDArray[np.int32]) -> float:
    loss = SegmentationLoss(tiny_recipe(**recipe_changes))
    return float(loss([torch.tensor(level, dtype=torch.float32) for level in logits], torch.from_numpy(labels)))


def test_a_perfect_prediction_costs_nothing() -> None:
    _, labels = logits_and_labels(3)
    sure = 40 * one_hot(labels, [(0,), (1,), (2,)]) - 20
    assert loss_of({}, [sure], labels) == pytest.approx(0, abs=1e-5)
    assert loss_of(REGIONS, [40 * one_hot(labels, [(1, 2), (2,)]) - 20], labels) == pytest.approx(0, abs=1e-5)


def test_softmax_is_dice_of_the_foreground_plus_cross_entropy_of_all() -> None:
    logits, labels = logits_and_labels(3)
    dice, cross_entropy = softmax_terms(logits, one_hot(labels, [(0,), (1,), (2,)]))
    assert loss_of({}, [logits], labels) == pytest.approx(dice + cross_entropy, abs=1e-5)


def test_the_weights_of_the_terms() -> None:
    logits, labels = logits_and_labels(3)
    dice, cross_entropy = softmax_terms(logits, one_hot(labels, [(0,), (1,), (2,)]))
    weights = {"training": {"dice_weight": 0.5, "cross_entropy_weight": 3.0}}
    assert loss_of(weights, [logits], labels) == pytest.approx(0.5 * dice + 3 * cross_entropy, abs=1e-5)


def test_regions_overlap_and_each_has_its_own_binary_cross_entropy() -> None:
    logits, labels = logits_and_labels(2)
    dice, cross_entropy = sigmoid_terms(logits, one_hot(labels, [(1, 2), (2,)]))
    assert loss_of(REGIONS, [logits], labels) == pytest.approx(dice + cross_entropy, abs=1e-5)


def test_one_region_alone() -> None:
    logits, labels = logits_and_labels(1)
    only = {"output": "sigmoid", "labels": [{"value": 2, "name": "core", "colour": [1, 2, 3]}]}
    dice, cross_entropy = sigmoid_terms(logits, one_hot(labels, [(2,)]))
    assert loss_of(only, [logits], labels) == pytest.approx(dice + cross_entropy, abs=1e-5)


@pytest.mark.parametrize("changes", [{}, REGIONS])
def test_deep_supervision_weighs_each_level_half_of_the_one_above(changes: dict[str, Any]) -> None:
    outputs = 2 if changes else 3
    rng = np.random.default_rng(1)
    logits, _ = logits_and_labels(outputs)
    labels = rng.integers(0, 3, (2, 1, 2, 4, 2)).astype(np.int32)
    logits = logits[:, :, :2]
    lower = rng.normal(0, 2, (2, outputs, 1, 2, 1))
    groups: list[tuple[int, ...]] = [(1, 2), (2,)] if changes else [(0,), (1,), (2,)]
    terms = sigmoid_terms if changes else softmax_terms
    target = one_hot(labels, groups)
    # The share of each class among the 2 x 2 x 2 voxels that one voxel below covers.
    share = target.reshape(2, outputs, 1, 2, 2, 2, 1, 2).mean((3, 5, 7))
    expected = 2 / 3 * sum(terms(logits, target)) + 1 / 3 * sum(terms(lower, share))
    assert loss_of(changes, [logits, lower], labels) == pytest.approx(expected, abs=1e-5)


def test_an_absent_label_costs_finitely_and_has_a_gradient() -> None:
    loss = SegmentationLoss(tiny_recipe())
    logits = torch.zeros((1, 3, 2, 3, 4), requires_grad=True)
    value = loss([logits], torch.zeros((1, 1, 2, 3, 4), dtype=torch.int32))
    value.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(logits.grad).all())
    assert bool((logits.grad != 0).any())
