from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from volseg.evaluation.scores import LabelScore, State, absent
from volseg.evaluation.statistics import METRICS, Statistics, statistics, summarise


def score(value: int, dice: float | None, hd95_mm: float | None, state: State = "scored") -> LabelScore:
    return LabelScore(
        value=value,
        name=f"l{value}",
        state=state,
        dice=dice,
        iou=dice,
        accuracy=0.5,
        hd95_mm=hd95_mm,
        nsd=dice,
        predicted_ml=1.0,
        reference_ml=2.0,
    )


def test_hand_worked_numbers() -> None:
    found = statistics([0.2, None, 0.8, 0.5, 0.9])
    assert found.n == 4
    assert found.mean == pytest.approx(0.6)
    assert found.median == pytest.approx(0.65)
    assert found.std == pytest.approx(np.sqrt((0.16 + 0.04 + 0.01 + 0.09) / 3))
    assert (found.minimum, found.maximum) == (0.2, 0.9)


def test_nothing_defined_is_no_number() -> None:
    assert statistics([None, None]) == Statistics(n=0)
    assert statistics([]) == Statistics(n=0)


def test_one_case_has_no_spread() -> None:
    assert statistics([0.7, None]) == Statistics(n=1, mean=0.7, median=0.7, minimum=0.7, maximum=0.7)


def test_the_interval_is_that_of_scipy_s_bootstrap() -> None:
    values = np.random.default_rng(1).beta(8, 2, size=40)
    found = statistics(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=2).confidence_interval
    assert found.ci_low == pytest.approx(theirs.low, abs=0.004)
    assert found.ci_high == pytest.approx(theirs.high, abs=0.004)


def test_the_interval_stays_within_the_values_and_doesn_t_depend_on_their_order() -> None:
    values: list[float | None] = [0.99, 0.98, 0.2, 0.97]
    found = statistics(values)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert 0.2 <= found.ci_low < found.ci_high <= 0.99
    assert statistics(values[::-1]) == found


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = statistics([0.5, 0.5, 0.5])
    assert (found.ci_low, found.ci_high, found.std) == (0.5, 0.5, 0)


def test_empty_masks_are_counted_and_their_zeros_are_in_the_mean() -> None:
    cases = [
        [score(1, 0.8, 2.0), score(2, 0.6, 4.0)],
        [score(1, 0.0, None, "prediction empty"), score(2, 0.4, 6.0)],
        [score(1, 0.0, None, "reference empty"), absent(2, "l2")],
        [absent(1, "l1"), absent(2, "l2")],
    ]
    one, two, labels = summarise(cases)
    assert (one.value, one.name, one.cases) == (1, "l1", 4)
    assert one.states == {"scored": 1, "both empty": 1, "reference empty": 1, "prediction empty": 1}
    assert one.metrics["dice"].n == 3
    assert one.metrics["dice"].mean == pytest.approx(0.8 / 3)
    assert (one.metrics["hd95_mm"].n, one.metrics["hd95_mm"].mean) == (1, 2.0)
    assert one.metrics["accuracy"].n == 4
    assert [two.metrics["dice"].n, two.metrics["dice"].mean] == pytest.approx([2, 0.5])
    assert (labels.value, labels.name, labels.cases) == (None, "mean of labels", 4)
    assert labels.states == {"scored": 3, "both empty": 3, "reference empty": 1, "prediction empty": 1}
    # Cases: 0.7 and 3 mm; 0.2 and no distance, since one label is missing; 0; nothing at all.
    assert [labels.metrics["dice"].n, labels.metrics["dice"].mean] == pytest.approx([3, 0.3])
    assert [labels.metrics["hd95_mm"].n, labels.metrics["hd95_mm"].mean] == pytest.approx([1, 3.0])


def test_a_single_label_needs_no_mean_of_labels() -> None:
    assert [summary.name for summary in summarise([[score(1, 0.8, 2.0)]])] == ["l1"]
    assert summarise([]) == []


def test_every_metric_is_summarised() -> None:
    assert set(summarise([[score(1, 0.8, 2.0)]])[0].metrics) == set(METRICS)
    assert set(METRICS) == {"dice", "iou", "accuracy", "hd95_mm", "nsd"}
