"""The curves of a run as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from volseg.files import write_atomically


def draw_curves(path: Path, history: Sequence[dict[str, Any]], title: str) -> None:
    """Loss and learning rate, and below them the validation's Dice by label, against the step."""
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
        for name in dice_columns:
            heavy = name == "dice"
            label = "mean" if heavy else name.removeprefix("dice ")
            values = [row[name] for row in validated]
            axes[1].plot(
                [row["step"] for row in validated], values, label=label, linewidth=2.5 if heavy else 1, marker="."
            )
        axes[1].set_ylabel("Dice on held-out cases")
        axes[1].legend(loc="lower right")
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.grid(alpha=0.3)
    picture = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
