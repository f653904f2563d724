"""How a model is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from volseg.inference.engines import EngineChoice, PrecisionChoice
from volseg.inference.memory import Plan
from volseg.inference.stream import Progress


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is run.

    Attributes
    ----------
    mirroring
        Average mirrored passes; None: as the recipe says.
    engine, precision
        What runs the network; ``auto`` as `volseg.inference.engines.choice` says.
    folds
        Names of the folds to average; empty: all.
    device
        ``cpu``, ``cuda`` or ``mps``.
    labels
        Names or values of the labels to find; empty: all.
    tile_step
        Largest step from window to window, as a share of the window; None: as the recipe says.
    coarse_to_fine
        Find in as few windows as cover the scan where labels are, and look there alone with the usual steps.
    probabilities, entropy
        Also make maps of each label's probability, and of the entropy of what the network says.
    memory
        Bytes that the process may hold; labels don't depend on it. None: what the machine has.
    planned
        Called with what a scan will take, before it is segmented.
    progress
        Called after each window with the number that are done, and of all.
    staged
        Called with what comes, before either stage of a cascade: ``"first stage"``.
    """

    mirroring: bool | None = None
    engine: EngineChoice = "auto"
    precision: PrecisionChoice = "auto"
    folds: tuple[str, ...] = ()
    device: str = "cpu"
    labels: tuple[str, ...] = ()
    tile_step: float | None = None
    coarse_to_fine: bool = False
    probabilities: bool = False
    entropy: bool = False
    memory: int | None = None
    planned: Callable[[Plan], None] | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)
    staged: Callable[[str], None] | None = field(default=None, compare=False)
