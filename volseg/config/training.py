"""Training in a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from volseg.config.augmentation import AugmentationConfig
from volseg.config.loss import CrossEntropyTerm, LossTerm, OverlapTerm
from volseg.config.section import Count, Positive, Probability, Section
from volseg.config.synthesis import SynthesisConfig

TrainingPrecision = Literal["auto", "fp32", "bf16", "fp16"]


class TrainingConfig(Section):
    """How the network is trained."""

    steps: Annotated[int, Field(ge=1)] = 5000
    """Optimiser steps, where the command gives neither --steps nor --minutes."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Patches a step, of each process where several train."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Largest learning rate."""
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop", "muon"] = "adamw"
    """Optimiser: sgd has Nesterov's momentum. muon makes the singular values of each step of a hidden layer's kernel
    alike, and is adamw for the other weights.
    """
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Momentum of sgd and rmsprop, of which nnU-Net's is 0.99, and of muon, where 0.95 is usual."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decays of the two averages of adam and adamw, and of what muon leaves to it."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay: with adamw by itself, with the others as a part of the gradient."""
    decayed: Literal["all", "kernels"] = "all"
    """Weights that weight decay is applied to; kernels: no bias, and no scale or shift of a normalisation."""
    accumulated_batches: Count = 1
    """Batches a step, one after the other: the gradient of a larger batch in the memory of one. A loss over the batch
    is computed for each of them.
    """
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises linearly; with one_cycle, along half a cosine."""
    schedule: Literal["cosine", "polynomial", "one_cycle", "constant"] = "cosine"
    """Fall of the learning rate after the warmup; the polynomial's power is 0.9. one_cycle starts from 1/25 of the
    largest rate, and ends at 1/250000 of it.
    """
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which then is what is validated and kept; 0: none."""
    gradient_clip: Annotated[float, Field(gt=0)] = 12.0
    """Largest norm of the gradient."""
    precision: TrainingPrecision = "auto"
    """Number format of the network; weights, loss and optimiser are fp32 in each. auto: on a CPU bf16 where it computes
    in that itself, else fp32; on a GPU bf16 where it does, else fp16, whose loss is scaled. fp16 is for GPUs alone.
    """
    loss: Annotated[tuple[LossTerm, ...], Field(min_length=1)] = (
        OverlapTerm(kind="dice"),
        CrossEntropyTerm(kind="cross_entropy"),
    )
    """Terms that are added up."""
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight of each output in every term, in their order: with softmax, the background comes first. Equal unless
    given."""
    boundary_weight: Annotated[float, Field(ge=0)] = 0.0
    """Further weight, beyond 1, of a voxel at the surface of a label in cross-entropy and focal loss."""
    boundary_sigma_mm: Positive = 2.0
    """Width of the Gaussian by which the further weight falls off with the distance from the surface. It is in voxels
    where the recipe has no spacing.
    """
    ignored_label: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Value in the training labels of voxels that nobody judged: they are left out of the loss, of the choice of
    patches and of validation."""
    deep_supervision_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight of each supervised output, full resolution first; each half of the one above it unless given. Their sum
    is brought to 1."""
    foreground_fraction: Probability = 0.5
    """Share of patches centred on a voxel of a label; the rest is anywhere."""
    balance: Literal["case", "label"] = "case"
    """Units that such patches have equally many of. case: cases, and in each one those of its labels. label: labels,
    each from the cases that hold it, however few these are.
    """
    validations: Annotated[int, Field(ge=1)] = 10
    """Validations over the run, the last at its end (where a fold is held out)."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations without a better one after which training stops early."""
    held_out: tuple[str, ...] = ()
    """Names of cases that are never trained on nor validated with: they are kept for a test."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds of the cross-validation."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split and of every random choice."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to the patches."""
    synthesis: SynthesisConfig | None = None
    """Synthesis of images from label maps; the cases' own images alone unless given."""

    @model_validator(mode="before")
    @classmethod
    def _weights_of_two_terms(cls, content: Any) -> Any:
        """Models of version 0.1 have a weight each for Dice and cross-entropy, and no other loss."""
        if not isinstance(content, dict) or not {"dice_weight", "cross_entropy_weight"} & content.keys():
            return content
        rest = dict(content)
        weights = {kind: rest.pop(f"{kind}_weight", 1.0) for kind in ("dice", "cross_entropy")}
        return {"loss": [{"kind": kind, "weight": weight} for kind, weight in weights.items() if weight], **rest}
