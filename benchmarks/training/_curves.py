"""The points of `benchmarks.training.curves`, their table and their picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from benchmarks.training._results import PUBLISHED, markdown
from volseg.config import Section

#: The mean Dice that is to be reached soon.
GOAL = 0.88
#: Where the picture's axis begins at the latest if some points lie below it: the differences that matter are of 0.01.
LOWEST = 0.8
Kind = Literal["own schedule", "along a run"]


class Point(Section):
    """Mean Dice of some weights over the cases held out."""

    tool: Literal["volseg", "nnunetv2"]
    """What trained them."""
    kind: Kind
    """At the end of a run of so many minutes, or before the end of a longer one."""
    planned_minutes: float
    """Length of the run."""
    minutes: float
    """When the weights were there, in minutes that count."""
    steps: int
    """Steps until then."""
    mirrored: bool
    """Whether mirrored passes were averaged."""
    load_before: float
    """Mean number of running processes in the minute before the run."""
    recipe_sha256: str = ""
    """Of volseg's recipe."""
    dice: float
    """Mean over cases of the mean of labels; along a run of volseg, mean over labels of the mean over cases."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval of it, over cases."""
    labels: dict[str, float]
    """Mean over cases of each label."""


class Curves(Section):
    """``curves.json``."""

    machine: str
    """Cores and versions."""
    fold: int
    """Fold of volseg's split that is held out."""
    nnunetv2: dict[str, Any] | None = None
    """Its versions, plan, threads, seconds a step and of preprocessing."""
    points: tuple[Point, ...] = ()
    """By tool, kind and time."""

    def series(self) -> dict[str, list[Point]]:
        """Points that make one line of the picture, by its name; those of one run go on to its end."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            if point.tool == "nnunetv2":
                name = f"nnunetv2, one run of {point.planned_minutes:g} minutes, "
                found.setdefault(name + ("mirrored" if point.mirrored else "not mirrored"), []).append(point)
                continue
            if point.kind == "own schedule":
                found.setdefault("volseg, a run for each time", []).append(point)
        along = [point for point in self.points if point.tool == "volseg" and point.kind == "along a run"]
        for minutes in sorted({point.planned_minutes for point in along}):
            found[f"volseg, one run of {minutes:g} minutes"] = [
                point for point in self.points if point.tool == "volseg" and point.planned_minutes == minutes
            ]
        return {name: sorted(points, key=lambda point: point.minutes) for name, points in sorted(found.items())}


def reached(points: Sequence[Point], dice: float = GOAL) -> str:
    """When a line first has a point of at least `dice`; nothing is read off between points."""
    first = next((point for point in points if point.dice >= dice), None)
    return f"not in {points[-1].minutes:.1f}" if first is None else f"{first.minutes:.1f}"


def curves_table(curves: Curves) -> str:
    """All points, and for each line when it has reached the goal, as markdown."""
    names = list(dict.fromkeys(name for point in curves.points for name in point.labels))
    rows = []
    for point in curves.points:
        interval = "-" if point.interval is None else f"{point.interval[0]:.4f} to {point.interval[1]:.4f}"
        rows.append(
            [
                f"{point.tool}, {'mirrored' if point.mirrored else 'not mirrored'}",
                f"{'end of' if point.kind == 'own schedule' else 'along'} {point.planned_minutes:g}",
                f"{point.minutes:.1f}",
                str(point.steps),
                *(f"{point.labels[name]:.4f}" if name in point.labels else "-" for name in names),
                f"{point.dice:.4f}",
                interval,
                f"{point.load_before:.1f}",
            ]
        )
    head = ["", "run of minutes", "minutes", "steps", *names, "mean", "95 % CI", "load before"]
    times = [[name, reached(points)] for name, points in curves.series().items()]
    goals = markdown(["line", f"minutes to a point of {GOAL}"], times)
    return "\n\n".join([f"Fold {curves.fold} held out; {curves.machine}.", markdown(head, rows), goals, *_peer(curves)])


def _peer(curves: Curves) -> list[str]:
    """A sentence on nnunetv2's run."""
    if not (found := curves.nnunetv2):
        return []
    features = ", ".join(map(str, found["features"]))
    return [
        f"nnunetv2 {found['versions']['nnunetv2']}, torch {found['versions']['torch']}: windows of"
        f" {'x'.join(map(str, found['patch']))}, batch {found['batch']}, features {features};"
        f" {found['threads']} threads and {found['augmenting_processes']} processes that augment;"
        f" {found['step_s']:.2f} s a step; {found['preprocessing_s']:.0f} s of preprocessing, not counted."
    ]


def draw(curves: Curves) -> bytes:
    """PNG of all lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, points in curves.series().items():
        colour = "tab:blue" if name.startswith("volseg") else "tab:orange"
        style = ":" if name.startswith("volseg, one run") or name.endswith("not mirrored") else "-"
        minutes, dice = [point.minutes for point in points], [point.dice for point in points]
        axes.plot(minutes, dice, marker="o", color=colour, linestyle=style, markersize=4, label=name)
    axes.axhline(PUBLISHED, color="black", linestyle="--", linewidth=1)
    caption = f"{PUBLISHED}: nnU-Net's published figure, five folds, about two hours of an H100 each"
    axes.text(0.99, PUBLISHED, caption, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    # Every line's best point is to be seen.
    bottom = min([LOWEST, *(max(point.dice for point in points) - 0.02 for points in curves.series().values())])
    cut = any(point.dice < bottom for point in curves.points)
    below = f" (below {bottom:.2f} not shown)" if cut else ""
    axes.set(xlabel="minutes of training", ylabel=f"mean Dice of both labels{below}", xlim=(0, None))
    if cut:
        axes.set_ylim(bottom=bottom)
    axes.set_title(f"Hippocampus, fold {curves.fold} held out, one machine", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
