"""What a segmentation says of its own quality, a label at a time: numbers, and flags where these are unusual.

None of this says that a mask is wrong, or that it is right: it says which cases to look at first.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.config import Recipe
from volseg.geometry import Shape
from volseg.inference.decide import Decision
from volseg.inference.engines.head import Head
from volseg.inference.probabilities import Output
from volseg.inference.windows import Place
from volseg.models.folder import Span
from volseg.results.case import LabelResult
from volseg.volume import LabelVolume

#: A label whose mean confidence is below this is flagged.
LOW_CONFIDENCE = 0.8
#: A label in which the passes agree less than this is flagged.
LOW_AGREEMENT = 0.8
#: How far a volume may lie outside the range of the training cases, as a factor.
VOLUME_MARGIN = 1.25
#: With more outputs than this, confidence and agreement are taken at every second voxel along each axis.
DENSE_OUTPUTS = 16
#: Labels that a flag names; of more, it gives the number.
NAMED = 6
#: The kinds of flags, and what each means.
FLAGS = {
    "low-confidence": f"mean probability of the label below {LOW_CONFIDENCE}",
    "passes-differ": f"Dice between folds or mirrored passes below {LOW_AGREEMENT}",
    "unusual-volume": "beyond what the training cases hold",
    "touches-border": "may be cut off there",
}
#: Directions in which one leaves a scan, and where each letter's axis leads the other way.
SIDES = "LRPAIS"
OPPOSITE = dict(zip(SIDES, "RLAPSI", strict=True))

Counts = npt.NDArray[np.float64]


def _every(outputs: int) -> tuple[slice, slice, slice]:
    """Which voxels along three axes are looked at."""
    part = slice(None, None, 1 if outputs <= DENSE_OUTPUTS else 2)
    return part, part, part


@dataclass(frozen=True)
class Quality:
    """Of one label; each is None where it isn't known.

    Attributes
    ----------
    confidence
        Mean probability of the label where it wins, over the voxels of the model's grid.
    agreement
        Dice between the first pass (of folds, and mirrored or not) and the others.
    """

    confidence: float | None = None
    agreement: float | None = None


def _ratio(part: float, whole: float) -> float | None:
    return round(float(part / whole), 4) if whole else None


class Confidence:
    """Mean probability of what wins, summed row of blocks by row of blocks: in any order, by several threads.

    Parameters
    ----------
    decision, output
        Rules by which logits become a label's index, and probabilities.
    outputs
        Number of the network's outputs.
    """

    def __init__(self, decision: Decision, output: Output, outputs: int) -> None:
        self.decision, self.output, self.outputs = decision, output, outputs
        self._lock = threading.Lock()
        self._rows: dict[int, tuple[Counts, Counts]] = {}

    def add(self, logits_RHWC: Tensor, row: int) -> None:
        """Take logits on the model's grid: every voxel once, whatever the source's grid. `row` numbers the calls."""
        logits = logits_RHWC[_every(self.outputs)].flatten(0, 2)
        index = self.decision.pick(logits, torch.arange(self.outputs))
        found = index > 0
        index = index[found]
        probability = self.output.of_winner(logits[found], index).double().numpy()
        size = self.outputs + 1
        weighted = np.bincount(index, probability, size).astype(np.float64)
        counted = np.bincount(index, minlength=size).astype(np.float64)
        with self._lock:
            self._rows[row] = weighted, counted

    def means(self) -> list[float | None]:
        """By the label's index."""
        # Added up in the order of rows, whatever order they came in: else the last bits would depend on it.
        total, count = np.sum([self._rows[row] for row in sorted(self._rows)], axis=0)
        return [_ratio(*each) for each in zip(total, count, strict=True)]


class Agreement:
    """Dice between the labels of each window's first pass and those of its others, in the middle of the window.

    Parameters
    ----------
    decision
        Rule by which logits become a label's index.
    outputs
        Number of the network's outputs.
    window
        D, H, W of the window.
    passes
        Passes over each window: folds times mirrored.
    """

    def __init__(self, decision: Decision, outputs: int, window: Shape, passes: int) -> None:
        self.decision, self.outputs, self.passes = decision, outputs, passes
        d, h, w = (
            slice(size // 4, size - size // 4, part.step) for size, part in zip(window, _every(outputs), strict=True)
        )
        self.middle = (d, h, w)
        self._open: dict[tuple[int, ...], tuple[Tensor, int]] = {}
        self._both, self._all = np.zeros((2, outputs + 1))

    def add(self, window: Place, values_DHWV: Tensor, head: Head | None) -> None:
        """Take one pass of a window: logits, or what `head` makes them of."""
        if self.passes == 1:
            return
        place = tuple(part.start for part in window)
        values = values_DHWV[self.middle].contiguous()
        logits = values if head is None else head(values)
        index = self.decision.pick(logits, torch.arange(self.outputs)).flatten()
        first, count = self._open.get(place, (index, 0))
        self._open[place] = first, count + 1
        if count + 1 == self.passes:
            del self._open[place]
        if count:
            size = self.outputs + 1
            self._both += np.bincount(index[index == first], minlength=size)
            self._all += np.bincount(index, minlength=size) + np.bincount(first, minlength=size)

    def dice(self) -> list[float | None]:
        """By the label's index; None where no pass found it, or where there is one pass alone."""
        return [_ratio(2 * both, whole) for both, whole in zip(self._both, self._all, strict=True)]


def by_value(recipe: Recipe, confidence: Confidence, agreement: Agreement) -> dict[int, Quality]:
    """What is known of each label, by its value."""
    rows = zip(confidence.means()[1:], agreement.dice()[1:], strict=True)
    return {label.value: Quality(*row) for label, row in zip(recipe.labels, rows, strict=False)}


def border_sides(mask: LabelVolume) -> dict[int, str]:
    """Of each label that touches the border of the scan: the letters of the sides, such as ``"IS"``.

    They are the directions in which one leaves the scan there: L or R, P or A, I or S.
    """
    sides: dict[int, str] = {}
    for axis, letter in enumerate(mask.geometry.orientation):
        for end, side in ((-1, letter), (0, OPPOSITE[letter])):
            for value in np.unique(mask.array.take(end, axis)).tolist():
                sides[value] = sides.get(value, "") + side
    sides.pop(0, None)
    return {value: "".join(sorted(found, key=SIDES.index)) for value, found in sides.items()}


def quality_flags(labels: Sequence[LabelResult], volumes_ml: Mapping[str, Span] | None) -> list[str]:
    """Flags for ``result.json``: a leading word for the kind, then the labels in question.

    Parameters
    ----------
    labels
        Volume and quality of each label.
    volumes_ml
        Smallest and largest volume in the training cases, by the label's name; None: not known.
    """
    found: dict[str, list[str]] = {kind: [] for kind in FLAGS}
    for label in labels:
        name, volume = label.name, label.volume_ml
        low, high = (volumes_ml or {}).get(name, (0.0, math.inf))
        if label.confidence is not None and label.confidence < LOW_CONFIDENCE:
            found["low-confidence"].append(f"{name} ({label.confidence:.2f})")
        if label.agreement is not None and label.agreement < LOW_AGREEMENT:
            found["passes-differ"].append(f"{name} ({label.agreement:.2f})")
        if not low / VOLUME_MARGIN <= volume <= high * VOLUME_MARGIN:
            found["unusual-volume"].append(f"{name} ({volume:.4g} ml, in training {low:g} to {high:g} ml)")
        if label.touches_border:
            found["touches-border"].append(f"{name} ({''.join(label.touches_border)})")
    return [f"{kind}: {_named(names)}; {FLAGS[kind]}" for kind, names in found.items() if names]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more labels" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
