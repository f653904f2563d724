"""How a model is run."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.inference.engines import EngineChoice, PrecisionChoice


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is run: data alone.

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
        Bytes that the process may hold. None: what the machine has.
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
