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
        Whether mirrored passes are averaged; None: as the recipe says.
    engine, precision
        Names of the engine and of its precision; ``auto`` as `volseg.inference.engines.choice` says.
    folds
        Names of the folds to average; empty: all.
    device
        Name of the device: ``cpu``, ``cuda`` or ``mps``.
    labels
        Names or values of the labels to find; empty: all.
    tile_step
        Largest step from window to window, as a share of the window; None: as the recipe says.
    coarse_to_fine
        Whether to find in as few windows as cover the scan where labels are, and look there alone with the usual steps.
    probabilities, entropy
        Whether to make maps of each label's probability, and of the entropy of the network's answer.
    memory
        Bytes that the process may hold. None: as much as the machine has.
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
