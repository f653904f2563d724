"""The curves of a run as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from volseg.files import write_atomically

#: Labels with a name and a colour of their own in the picture.
NAMED = 8


def draw_curves(path: Path, history: Sequence[dict[str, Any]], title: str) -> None:
    """Loss and learning rate, and below them the validation's Dice by label, against the step.

    More labels than `NAMED` have thin grey lines without names.
    """
    dice_columns = [name for name in history[0] if name.startswith("dice")] if history else []
    validated = [row for row in history if row.get("dice") is not None]
    figure = Figure(figsize=(8, 6 if validated else 3.5), layout="constrained")
    axes = figure.subplots(2 if validated else 1, 1, squeeze=False, sharex=True)[:, 0]
    steps = [row["step"] for row in history]
    axes[0].plot(steps, [row["loss"] for row in history], color="tab:blue")
    axes[0].set_ylabel("training loss")
    axes[0].set_title(title)
    rate = axes[0].twinx()
    rate.plot(steps, [row["learning_rate"] for row in history], color="tab:gray", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    if validated:
        many = len(dice_columns) - 1 > NAMED
        at = [row["step"] for row in validated]
        for name in dice_columns[::-1]:  # the mean, which is the first one, is drawn over the others
            style: dict[str, Any] = {"label": name.removeprefix("dice "), "linewidth": 1}
            if name == "dice":
                style = {"label": "mean of labels", "linewidth": 2.5, "color": "tab:blue"}
            elif many:
                style = {"linewidth": 0.5, "color": "0.7"}
            values = [math.nan if row[name] is None else row[name] for row in validated]
            axes[1].plot(at, values, marker=".", **style)
        axes[1].set_ylabel("Dice on held-out cases")
        axes[1].legend()
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        axis.grid(alpha=0.3)
    picture = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
