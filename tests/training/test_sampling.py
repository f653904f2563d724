"""Where patches are taken."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.helpers.tiny import tiny_recipe
from tests.helpers.training_cases import as_case
from volseg.training.dataset import TrainingCase
from volseg.training.sampling import Place, Sampler
from volseg.training.warp import cut


def places(cases: list[TrainingCase], count: int, **changes: Any) -> list[Place]:
    sampler = Sampler(cases, tiny_recipe(**{"window": [4, 4, 4], **changes}))
    return [sampler(np.random.default_rng(seed)) for seed in range(count)]


def centre(place: Place) -> int:
    """Label in the middle of a window of 4 x 4 x 4."""
    d, h, w = (first + 2 for first in place.start)
    return int(place.case.labels_DHW[d, h, w])


def blocks(shape: tuple[int, int, int] = (40, 40, 40)) -> Tensor:
    """Thousands of voxels of label 1, one of label 2."""
    labels = torch.zeros(shape, dtype=torch.int32)
    labels[8:32, 8:32, 8:20] = 1
    labels[20, 20, 28] = 2
    return labels


def test_a_foreground_patch_is_centred_on_each_label_equally_often() -> None:
    found = Counter(map(centre, places([as_case(blocks())], 200, training={"foreground_fraction": 1.0})))
    assert set(found) == {1, 2}
    assert 70 <= found[2] <= 130


def test_the_fraction_is_that_of_patches_on_labels() -> None:
    labels = torch.zeros((60, 60, 60), dtype=torch.int32)
    labels[30, 30, 30] = 1
    found = Counter(map(centre, places([as_case(labels)], 400, training={"foreground_fraction": 0.25})))
    assert 70 <= found[1] <= 130


def test_a_background_patch_is_anywhere() -> None:
    labels = torch.zeros((20, 18, 16), dtype=torch.int32)
    labels[10, 9, 8] = 1
    starts = np.array([place.start for place in places([as_case(labels)], 300, training={"foreground_fraction": 0.0})])
    assert starts.min(0).tolist() == [0, 0, 0]
    assert starts.max(0).tolist() == [16, 14, 12]


def test_a_patch_at_an_edge_stays_inside() -> None:
    labels = torch.zeros((9, 8, 7), dtype=torch.int32)
    labels[8, 0, 6] = 1
    found = {place.start for place in places([as_case(labels)], 20, training={"foreground_fraction": 1.0})}
    assert found == {(5, 0, 3)}


def test_balanced_by_case_a_label_is_as_rare_as_its_cases_and_by_label_it_is_not() -> None:
    common = torch.zeros((12, 12, 12), dtype=torch.int32)
    common[3:9, 3:9, 3:9] = 1
    rare = common.clone()
    rare[5, 5, 5] = 2
    cases = [as_case(common, name=f"common_{n}") for n in range(9)] + [as_case(rare, name="rare")]
    counts = {}
    for balance in ("case", "label"):
        training = {"foreground_fraction": 1.0, "balance": balance}
        found = Counter(map(centre, places(cases, 300, training=training)))
        assert found[0] == 0
        counts[balance] = found[2]
    assert counts["case"] <= 40  # a tenth of the cases, half of their patches
    assert 120 <= counts["label"] <= 180


def test_a_label_that_no_case_holds_is_no_matter() -> None:
    labels = torch.zeros((9, 9, 9), dtype=torch.int32)
    empty = as_case(labels)
    for balance in ("case", "label"):
        training = {"foreground_fraction": 1.0, "balance": balance}
        assert len({place.start for place in places([empty], 50, training=training)}) > 10
        labels_1 = labels.clone()
        labels_1[4, 4, 4] = 1
        found = Counter(map(centre, places([empty, as_case(labels_1)], 100, training=training)))
        assert found[1] >= (100 if balance == "label" else 30)


def test_a_case_smaller_than_the_window_stands_at_random_places_with_0_around() -> None:
    case = as_case(torch.ones((3, 5, 16), dtype=torch.int32))
    seen = set()
    for place in places([case], 200, window=[8, 8, 8]):
        patch = cut(case.prepared.tensor_CDHW, place.start, (8, 8, 8))
        labels = cut(case.labels_DHW[None], place.start, (8, 8, 8))
        assert patch.shape == labels.shape == (1, 8, 8, 8)
        assert torch.equal(patch, 10.0 * labels)
        assert int(labels.sum()) == 3 * 5 * 8
        d, h, _ = labels[0].nonzero().amin(0).tolist()
        seen.add((d, h))
    assert seen == {(d, h) for d in range(6) for h in range(4)}


def test_patches_hold_what_the_case_holds() -> None:
    values = torch.arange(9 * 8 * 11).reshape(9, 8, 11)
    case = as_case(torch.zeros(values.shape, dtype=torch.int32), values.float())
    for place in places([case], 20):
        d, h, w = place.start
        expected = values[d : d + 4, h : h + 4, w : w + 4].float()
        assert torch.equal(cut(case.prepared.tensor_CDHW, place.start, (4, 4, 4))[0], expected)


def test_where_voxels_are_ignored_patches_are_centred_on_others() -> None:
    labels = torch.full((30, 30, 30), 9, dtype=torch.int32)
    labels[10:14, 10:14, 10:14] = 0
    labels[12, 12, 12] = 1
    found = Counter(map(centre, places([as_case(labels, ignored=9)], 200, training={"ignored_label": 9})))
    assert set(found) == {0, 1}
    assert 80 <= found[1] <= 130
