"""Scores of many cases in a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from volseg.evaluation.scores import STATES, LabelScore, State
from volseg.geometry import Floats

#: Metrics of a `LabelScore` that are summarised, and how people call them.
METRICS: dict[str, str] = {
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "Accuracy",
    "hd95_mm": "HD95 mm",
    "nsd": "NSD",
}
#: Coverage of the confidence interval of a mean.
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A metric over cases.

    Attributes
    ----------
    n
        Number of cases in which the metric is defined: the cases that the other numbers describe.
    mean, median, minimum, maximum
        Numbers over these cases; None where n is 0.
    std
        Sample standard deviation (n - 1); None where n is below 2.
    ci_low, ci_high
        95 % confidence interval of the mean, by percentile bootstrap over cases; None where n is below 2. With fewer
        than about ten cases it is narrower than it should be.
    """

    n: int
    mean: float | None = None
    median: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A label, or the mean of all labels, over cases.

    Attributes
    ----------
    value, name
        The label's value and name; None and ``"mean of labels"`` for each case's mean over the labels that are in one
        of its masks.
    cases
        Number of cases.
    states
        Number of cases in each state, scored or with an empty mask; for the mean of labels, of all labels together.
    metrics
        `Statistics` by the names in `METRICS`.
    """

    value: int | None
    name: str
    cases: int
    states: Mapping[State, int]
    metrics: Mapping[str, Statistics]


def statistics(values: Sequence[float | None]) -> Statistics:
    """Statistics of those of `values` that aren't None; their order doesn't matter."""
    defined = np.sort(np.array([value for value in values if value is not None], dtype=np.float64))
    if len(defined) == 0:
        return Statistics(n=0)
    low, high = _interval(defined) if len(defined) > 1 else (None, None)
    return Statistics(
        n=len(defined),
        mean=float(defined.mean()),
        median=float(np.median(defined)),
        std=float(defined.std(ddof=1)) if len(defined) > 1 else None,
        minimum=float(defined[0]),
        maximum=float(defined[-1]),
        ci_low=low,
        ci_high=high,
    )


def _interval(values: Floats) -> tuple[float, float]:
    """Percentile bootstrap of the mean: it needs no normal distribution, and stays within a metric's range."""
    # A fixed seed: the same cases give the same interval, everywhere.
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def summarise(cases: Sequence[Sequence[LabelScore]]) -> list[Summary]:
    """Summaries of each label, then of the mean of labels where there are several.

    Parameters
    ----------
    cases
        Scores of each case; every case has every label, in the same order.
    """
    labels = list(zip(*cases, strict=True))
    summaries = [_summary(scores[0].value, scores[0].name, len(cases), scores, _metrics(scores)) for scores in labels]
    if len(labels) > 1:
        everything = [score for scores in cases for score in scores]
        means = {key: statistics([_mean_of_labels(scores, key) for scores in cases]) for key in METRICS}
        summaries.append(_summary(None, "mean of labels", len(cases), everything, means))
    return summaries


def _summary(
    value: int | None, name: str, cases: int, scores: Sequence[LabelScore], metrics: Mapping[str, Statistics]
) -> Summary:
    found = Counter(score.state for score in scores)
    return Summary(value=value, name=name, cases=cases, states={s: found[s] for s in STATES}, metrics=metrics)


def _metrics(scores: Sequence[LabelScore]) -> dict[str, Statistics]:
    return {key: statistics([getattr(score, key) for score in scores]) for key in METRICS}


def _mean_of_labels(scores: Sequence[LabelScore], key: str) -> float | None:
    """Mean over the labels that are in a mask; None where the metric isn't defined for each of them.

    A missed organ has no HD95: the mean of the others would make the case look better than it is.
    """
    values = [getattr(score, key) for score in scores if score.state != "both empty"]
    return None if not values or None in values else float(np.mean(values))
