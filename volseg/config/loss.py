"""The terms of the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volseg.config.section import Positive, Section


class CrossEntropyTerm(Section):
    """kind: cross_entropy. Of the classes (softmax), or of each region by itself (sigmoid)."""

    kind: Literal["cross_entropy"]
    """Name of the loss."""
    weight: Positive = 1.0
    """Factor of this term."""


class FocalTerm(Section):
    """kind: focal. Cross-entropy in which voxels that the network is sure of weigh less."""

    kind: Literal["focal"]
    """Name of the loss."""
    weight: Positive = 1.0
    """Factor of this term."""
    gamma: Annotated[float, Field(ge=1)] = 2.0
    """Exponent of a voxel's weight, (1 - p) to this power, p being what the network gives the right class."""


class OverlapTerm(Section):
    """kind: dice or generalised_dice. The latter weighs each class by 1 over its squared volume."""

    kind: Literal["dice", "generalised_dice"]
    """Name of the loss."""
    weight: Positive = 1.0
    """Factor of this term."""
    over: Literal["batch", "sample"] = "batch"
    """Voxels that are counted together. batch: those of all patches. sample: each patch has a loss of its own."""
    background: bool = False
    """Whether the background counts as a class, with softmax."""


class TverskyTerm(Section):
    """kind: tversky. Dice in which the two errors have weights of their own; 0.5 and 0.5 is Dice."""

    kind: Literal["tversky"]
    """Name of the loss."""
    weight: Positive = 1.0
    """Factor of this term."""
    over: Literal["batch", "sample"] = "batch"
    """Voxels that are counted together, as for dice."""
    background: bool = False
    """Whether the background counts as a class, as for dice."""
    false_positives: Positive = 0.3
    """Weight of voxels that are marked and shouldn't be."""
    false_negatives: Positive = 0.7
    """Weight of voxels that are missed."""


LossTerm = Annotated[CrossEntropyTerm | FocalTerm | OverlapTerm | TverskyTerm, Field(discriminator="kind")]
