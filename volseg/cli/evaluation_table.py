"""An `Evaluation` for people: tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from volseg.evaluation.folders import CaseScore, Evaluation
from volseg.evaluation.pairs import NotEvaluated
from volseg.evaluation.scores import LabelScore
from volseg.evaluation.statistics import METRICS, Summary

#: With more rows than this a table of cases tells nobody anything; it is in the files.
MAX_ROWS = 200
#: Of the cases that weren't evaluated, this many are listed.
MAX_LISTED = 20


def render(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Tables of the cases and of the summary, then what couldn't be evaluated."""
    if evaluation.cases:
        rows = sum(len(case.labels) for case in evaluation.cases)
        if rows <= MAX_ROWS:
            yield _cases(evaluation.cases, evaluation.tolerance_mm)
            yield Text()
        else:
            yield Text(f"{rows} rows of cases and labels are too many to show; -o DIR writes them to metrics.csv.\n")
        summaries = evaluation.summaries()
        yield _summary(summaries, len(evaluation.cases))
        yield Text("\n".join(["", *_empty(summaries)]))
    for note in evaluation.notes:
        yield Text(f"note: {note}")
    if evaluation.not_evaluated:
        yield from _not_evaluated(evaluation.not_evaluated)


def _cases(cases: Sequence[CaseScore], tolerance_mm: float) -> Table:
    table = _table(f"Cases (NSD within {tolerance_mm:g} mm; volumes in ml)")
    table.add_column("Case", overflow="fold")
    table.add_column("Label", overflow="fold")
    for head in ("Dice", "IoU", "Acc", "HD95", "NSD", "Pred", "Ref"):
        table.add_column(head, justify="right", no_wrap=True)
    for case in cases:
        for row, score in enumerate(case.labels):
            table.add_row("" if row else case.case, _label(score), *_numbers(score))
    return table


def _label(score: LabelScore) -> str:
    return score.name if score.state == "scored" else f"{score.name} ({score.state})"


def _numbers(score: LabelScore) -> list[str]:
    return [
        number(score.dice, 3),
        number(score.iou, 3),
        number(score.accuracy, 3),
        number(score.hd95_mm, 2),
        number(score.nsd, 3),
        volume(score.predicted_ml),
        volume(score.reference_ml),
    ]


def _summary(summaries: Sequence[Summary], cases: int) -> Table:
    table = _table(f"Summary of {cases} case{'' if cases == 1 else 's'}")
    table.add_column("Label", overflow="fold")
    table.add_column("Metric", no_wrap=True)
    for head in ("n", "Mean", "95 % CI", "Median", "SD", "Min", "Max"):
        table.add_column(head, justify="right", no_wrap=True)
    for summary in summaries:
        for row, (key, head) in enumerate(METRICS.items()):
            digits = 2 if key == "hd95_mm" else 4
            found = summary.metrics[key]
            interval = "-" if found.ci_low is None else f"{found.ci_low:.{digits}f}-{found.ci_high:.{digits}f}"
            shown = [number(value, digits) for value in (found.median, found.std, found.minimum, found.maximum)]
            table.add_row(
                summary.name if row == 0 else "", head, str(found.n), number(found.mean, digits), interval, *shown
            )
    return table


def _empty(summaries: Sequence[Summary]) -> list[str]:
    """A line for each label that isn't in both masks of every case."""
    lines = []
    for summary in summaries:
        counts = [f"{state} in {n}" for state, n in summary.states.items() if n and state != "scored"]
        if counts and summary.value is not None:
            lines.append(f"{summary.name}: {', '.join(counts)} of {summary.cases} cases")
    if lines:
        lines.append(
            "Where one mask is empty, Dice, IoU and NSD are 0 and HD95 is left out; where both are, all of them are"
            " left out. n says how many cases a number is of."
        )
    return lines


def _not_evaluated(items: Sequence[NotEvaluated]) -> Iterator[RenderableType]:
    yield Text(f"\nNot evaluated: {len(items)}")
    for item in items[:MAX_LISTED]:
        refused = f"refused ({item.code}): " if item.code else ""
        yield Padding(Text(f"{item.case}: {refused}{item.reason}"), (0, 0, 0, 2))
    if len(items) > MAX_LISTED:
        yield Text(f"  and {len(items) - MAX_LISTED} more; --json lists them all")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)


def number(value: float | None, digits: int) -> str:
    """A number, or a hyphen where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def volume(ml: float) -> str:
    """A volume in ml, with as many digits as matter."""
    return f"{ml:.0f}" if ml >= 100 else f"{ml:.1f}" if ml >= 10 else f"{ml:.2f}" if ml >= 1 else f"{ml:.3f}"
