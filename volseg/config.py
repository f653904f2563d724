"""The recipe: everything that one segmentation task chooses, in one strict YAML file.

A key that isn't a field is an error. Axes are those of the tensor, (D, H, W), which the recipe's `orientation` defines.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from volseg.errors import RecipeError
from volseg.geometry import ORIENTATIONS
from volseg.volume import ANATOMICAL_STRUCTURE, Code, Label, canonical_modality


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the smaller number comes first")
    return pair


def _different(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError("an axis is named twice")
    return axes


def _for_all_axes(given: Any) -> Any:
    return (given,) * 3 if isinstance(given, int | float) else given


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Count = Annotated[int, Field(ge=1)]
TrainingPrecision = Literal["auto", "fp32", "bf16", "fp16"]
Positive = Annotated[float, Field(gt=0)]
Triple = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Spacing = tuple[Positive, Positive, Positive]
Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Factors = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]
Quantiles = Annotated[tuple[Probability, Probability], AfterValidator(_ascending)]
Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], AfterValidator(_different)]
Share = Annotated[float, Field(gt=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Byte = Annotated[int, Field(ge=0, le=255)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]

#: The orientation of models that use a file's own axes, reversed and not reoriented.
STORED_KJI = "stored-KJI"
#: Every order of a file's own axes, not reoriented.
STORED_ORIENTATIONS = tuple(f"stored-{''.join(order)}" for order in itertools.permutations("KJI"))


class Section(BaseModel):
    """A part of the recipe: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CodeConfig(Section):
    """A coded concept, such as SNOMED CT's."""

    value: str
    """Code value."""
    scheme: str = "SCT"
    """Coding scheme designator; SCT is SNOMED CT."""
    meaning: str
    """Code meaning, at most 64 characters."""

    def code(self) -> Code:
        """Return the concept as the rest of volseg takes it."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class LabelConfig(Section):
    """One label: its value in a mask, its name, and how viewers should call and paint it."""

    value: Annotated[int, Field(ge=1, le=65535)]
    """Value in the mask; 0 is the background and isn't listed."""
    name: str
    """Name for people."""
    colour: tuple[Byte, Byte, Byte]
    """Red, green, blue."""
    code: CodeConfig | None = None
    """Coded property type for DICOM."""
    category: CodeConfig | None = None
    """Coded property category for DICOM; an anatomical structure unless given."""
    modifier: CodeConfig | None = None
    """Coded modifier of the property type, such as "Anterior"."""
    members: tuple[int, ...] = ()
    """With a sigmoid output: the values in the training labels that make up this region, where regions overlap; its
    own value unless given."""

    def label(self) -> Label:
        """Return the label as the rest of volseg takes it."""
        return Label(
            value=self.value,
            name=self.name,
            colour=self.colour,
            code=self.code.code() if self.code else None,
            category=self.category.code() if self.category else ANATOMICAL_STRUCTURE,
            modifier=self.modifier.code() if self.modifier else None,
        )


class IntensityConfig(Section):
    """How voxel values become network input."""

    scheme: Literal["zscore", "fixed", "minmax", "none"] = "zscore"
    """zscore: minus the case's mean, over its standard deviation. fixed: the same with `mean` and `std`. minmax: minus
    the case's minimum, over its range. none: as it is."""
    clip_percentiles: Quantiles | None = None
    """Clip to these quantiles (0 to 1) of the case first."""
    clip: Range | None = None
    """Clip to these values first."""
    mean: float = 0.0
    """Mean for `fixed`."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation for `fixed`."""
    use_mask: bool = False
    """With zscore: take mean and standard deviation of the content alone, and leave 0 outside. Content is where a
    channel isn't 0, and the holes in it."""

    @model_validator(mode="after")
    def _mask_for_zscore(self) -> Self:
        if self.use_mask and self.scheme != "zscore":
            raise ValueError(f"use_mask is for the scheme zscore, and this is {self.scheme}")
        return self


class ChannelConfig(Section):
    """One input channel. Where there are several, these rules find each one's series among those of a DICOM study."""

    name: str
    """Name of the channel, such as T1."""
    modalities: tuple[str, ...]
    """Modalities that it accepts, DICOM's terms."""
    description: Pattern | None = None
    """Regular expression, in any case, that occurs in the Series Description, such as "flair.*reg"."""
    sequence: Pattern | None = None
    """The same for what the headers say of the sequence: Protocol Name, Sequence Name, Pulse Sequence Name, Scanning
    Sequence and Sequence Variant, in this order."""

    intensity: IntensityConfig | None = None
    """How this channel's values become network input; as the recipe's `intensity` says unless given."""

    @field_validator("modalities")
    @classmethod
    def _dicom_terms(cls, modalities: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(canonical_modality(name) for name in modalities)


class ResamplingConfig(Section):
    """How scans are put on the model's grid, and the network's answer on the scan's."""

    image_order: Literal[1, 3] = 3
    """Degree of the spline for images: 1 is linear, 3 cubic. The result is clipped to the range of the input."""
    separate_axis: Literal["never", "auto", "always"] = "never"
    """Along the axis of the largest spacing take the nearest slice, and interpolate within slices only. auto: where
    the largest spacing of the scan, or else of the model's grid, is more than three times the smallest. always: along
    the scan's. Never where two axes share the largest spacing."""
    scheme: Literal["input", "image"] = "input"
    """input: the normalised crop is resampled, its outer edges stay in place, and logits are interpolated back. image,
    as TotalSegmentator does: the scan is resampled before crop and normalisation, the centres of its outermost voxels
    stay in place, values are cut to integers, and labels are brought back by the nearest voxel; it is linear."""

    @model_validator(mode="after")
    def _images_are_linear(self) -> Self:
        if self.scheme == "image" and (self.image_order, self.separate_axis) != (1, "never"):
            raise ValueError("scheme image needs image_order 1 and separate_axis never")
        return self


class NetworkConfig(Section):
    """The 3D U-Net. One entry a stage, from full resolution down."""

    features: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 32, 64, 128)
    """Channels of each stage."""
    kernels: tuple[Triple, ...] = ()
    """Kernel of each stage's convolutions, odd; 3x3x3 unless given. 1x3x3 suits thick slices."""
    strides: tuple[Triple, ...] = ()
    """Downsampling on entering each stage; the first is 1x1x1, the others 2x2x2 unless given."""
    convolutions: Count | tuple[Count, ...] = 2
    """Convolutions a stage, on the way down and on the way up; or one number a stage."""
    decoder_convolutions: tuple[Count, ...] = ()
    """Convolutions of each stage on the way up, which has one stage fewer; as `convolutions` unless given."""
    encoder: Literal["convolutions", "residual_blocks"] = "convolutions"
    """What `convolutions` counts on the way down: residual_blocks are pairs of convolutions with a shortcut (ResNet-D),
    behind a first convolution of their own."""
    downsampling: Literal["max_pool", "strided"] = "max_pool"
    """Max pooling, or a stride in the stage's first convolution."""
    upsampling: Literal["transposed", "interpolation"] = "transposed"
    """Transposed convolution, or linear interpolation with a 1x1x1 convolution."""
    normalisation: Literal["instance", "batch", "group", "none"] = "instance"
    """Normalisation behind each convolution."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of group normalisation."""
    epsilon: Positive = 1e-5
    """Added to the variance in the normalisation."""
    affine: bool = True
    """Scale and shift each channel after the normalisation."""
    bias: bool | None = None
    """Bias in every convolution; null: only where no normalisation takes it away, and in the upsampling."""
    activation: Literal["relu", "leaky_relu"] = "leaky_relu"
    """Activation behind each normalisation."""
    slope: Annotated[float, Field(ge=0)] = 0.01
    """Slope of LeakyReLU for negative values."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of channels dropped in training."""
    residual: bool = False
    """Add each stage's input to its output."""
    deep_supervision: bool = True
    """In training, also compare the outputs of the lower decoder stages with the labels."""
    initialisation: Literal["he", "xavier"] = "he"
    """Initial weights: He (normal, for rectifiers) or Xavier (uniform)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""

    @model_validator(mode="after")
    def _stages(self) -> Self:
        stages = len(self.features)
        for name in ("kernels", "strides"):
            given = len(getattr(self, name))
            if given not in (0, stages):
                raise ValueError(f"{name} has {given} entries and features has {stages}; give one a stage")
        if isinstance(self.convolutions, tuple) and len(self.convolutions) != stages:
            raise ValueError(f"convolutions has {len(self.convolutions)} entries and features has {stages}")
        if len(self.decoder_convolutions) not in (0, stages - 1):
            raise ValueError(f"decoder_convolutions has {len(self.decoder_convolutions)} entries, not {stages - 1}")
        if self.residual and self.encoder == "residual_blocks":
            raise ValueError("residual is for an encoder of convolutions: residual_blocks have shortcuts of their own")
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ValueError("kernels must be odd, so that a convolution keeps the size")
        if self.strides and self.strides[0] != (1, 1, 1):
            raise ValueError("the first stage's stride must be 1x1x1")
        if self.normalisation == "group" and any(size % self.groups for size in self.features):
            raise ValueError(f"features {self.features} can't be split into {self.groups} groups")
        return self

    @property
    def stage_kernels(self) -> tuple[Triple, ...]:
        """Kernel of each stage, defaults filled in."""
        return self.kernels or ((3, 3, 3),) * len(self.features)

    @property
    def stage_strides(self) -> tuple[Triple, ...]:
        """Stride of each stage, defaults filled in."""
        return self.strides or ((1, 1, 1), *((2, 2, 2),) * (len(self.features) - 1))

    @property
    def stage_convolutions(self) -> tuple[int, ...]:
        """Convolutions, or residual blocks, of each stage on the way down."""
        given = self.convolutions
        return (given,) * len(self.features) if isinstance(given, int) else given

    @property
    def supervised(self) -> int:
        """Number of outputs in training: with deep supervision each decoder stage but the lowest has one."""
        return max(1, len(self.features) - 2) if self.deep_supervision else 1

    @property
    def stage_decoder_convolutions(self) -> tuple[int, ...]:
        """Convolutions of each stage on the way up, full resolution first."""
        return self.decoder_convolutions or self.stage_convolutions[:-1]


class MirroringConfig(Section):
    """Mirrored passes, averaged. Only along axes that training flipped: others destroy the result."""

    axes: Axes = ()
    """Tensor axes (0 D, 1 H, 2 W) that may be mirrored."""
    use: bool = False
    """Whether prediction does so by default."""


class AugmentationConfig(Section):
    """Random changes to training patches. A probability of 0 leaves one out.

    Rotation, scaling, flips and elastic deformation are one resampling; labels take the nearest voxel's. The others
    change each channel by itself.
    """

    rotation_probability: Probability = 0.2
    """Of a rotation."""
    rotation_degrees: Annotated[tuple[Degrees, Degrees, Degrees], BeforeValidator(_for_all_axes)] = (15.0, 15.0, 15.0)
    """Largest rotation about D, H and W, or one number for all. In millimetres: shapes stay as they are whatever the
    spacing."""
    scaling_probability: Probability = 0.2
    """Of a change of size."""
    scaling_range: Factors = (0.7, 1.4)
    """Smallest and largest factor."""
    scaling_together: bool = False
    """The same factor along all axes."""
    elastic_probability: Probability = 0.0
    """Of an elastic deformation: a cubic B-spline between random displacements of points on a coarse grid."""
    elastic_spacing_mm: Positive = 32.0
    """Distance of these points."""
    elastic_displacement_mm: Annotated[float, Field(ge=0)] = 6.0
    """Largest displacement along each axis: at most 0.4 of the distance, so that nothing folds."""
    flip_axes: Axes = ()
    """Tensor axes flipped with probability 0.5: only where no label changes its meaning, or `swapped_labels` has it."""
    swapped_labels: tuple[tuple[Count, Count], ...] = ()
    """Pairs of values in the training labels, such as left and right kidney, that change places in a flip along the
    axis from left to right."""
    bias_field_probability: Probability = 0.0
    """Of a smooth change of brightness over the patch, as a coil's sensitivity makes it."""
    bias_field_range: Factors = (0.7, 1.4)
    """Smallest and largest factor, of what is above the patch's lowest value."""
    noise_probability: Probability = 0.1
    """Of Gaussian noise."""
    noise_std: Annotated[float, Field(ge=0)] = 0.1
    """Largest standard deviation of the noise, in units of the normalised image."""
    blur_probability: Probability = 0.1
    """Of a Gaussian blur."""
    blur_sigma: Factors = (0.5, 1.0)
    """Smallest and largest sigma, in voxels."""
    brightness_probability: Probability = 0.15
    """Of a multiplied brightness."""
    brightness_range: Factors = (0.75, 1.25)
    """Smallest and largest factor."""
    contrast_probability: Probability = 0.15
    """Of a change of contrast about the patch's mean."""
    contrast_range: Factors = (0.75, 1.25)
    """Smallest and largest factor."""
    low_resolution_probability: Probability = 0.0
    """Of a loss of resolution: the nearest voxels of a coarser grid, brought back by a cubic spline."""
    low_resolution_range: Annotated[tuple[Share, Share], AfterValidator(_ascending)] = (0.5, 1.0)
    """Smallest and largest size of the coarser grid, as a share of the patch's."""
    inverted_gamma_probability: Probability = 0.0
    """Of a gamma curve of the negative image."""
    gamma_probability: Probability = 0.15
    """Of a gamma curve."""
    gamma_range: Factors = (0.7, 1.5)
    """Smallest and largest exponent."""

    @model_validator(mode="after")
    def _nothing_folds(self) -> Self:
        if self.elastic_displacement_mm > 0.4 * self.elastic_spacing_mm:
            raise ValueError("elastic_displacement_mm is more than 0.4 of elastic_spacing_mm: tissue would fold")
        swapped = [value for pair in self.swapped_labels for value in pair]
        if len(set(swapped)) < len(swapped):
            raise ValueError("swapped_labels names a value twice")
        return self


class CrossEntropyTerm(Section):
    """kind: cross_entropy. Of the classes (softmax), or of each region by itself (sigmoid)."""

    kind: Literal["cross_entropy"]
    """Which loss."""
    weight: Positive = 1.0
    """Factor of this term."""


class FocalTerm(Section):
    """kind: focal. Cross-entropy in which voxels that the network is sure of weigh less."""

    kind: Literal["focal"]
    """Which loss."""
    weight: Positive = 1.0
    """Factor of this term."""
    gamma: Annotated[float, Field(ge=1)] = 2.0
    """A voxel weighs (1 - p) to this power, p being what the network gives the right class."""


class OverlapTerm(Section):
    """kind: dice or generalised_dice. The latter weighs each class by 1 over its squared volume."""

    kind: Literal["dice", "generalised_dice"]
    """Which loss."""
    weight: Positive = 1.0
    """Factor of this term."""
    over: Literal["batch", "sample"] = "batch"
    """batch: voxels of all patches are counted together. sample: each patch has a loss of its own."""
    background: bool = False
    """With softmax: whether the background counts as a class."""


class TverskyTerm(Section):
    """kind: tversky. Dice in which the two errors have weights of their own; 0.5 and 0.5 is Dice."""

    kind: Literal["tversky"]
    """Which loss."""
    weight: Positive = 1.0
    """Factor of this term."""
    over: Literal["batch", "sample"] = "batch"
    """As for dice."""
    background: bool = False
    """As for dice."""
    false_positives: Positive = 0.3
    """Weight of what is marked and shouldn't be."""
    false_negatives: Positive = 0.7
    """Weight of what is missed."""


LossTerm = Annotated[CrossEntropyTerm | FocalTerm | OverlapTerm | TverskyTerm, Field(discriminator="kind")]


class TrainingConfig(Section):
    """How the network is trained."""

    steps: Annotated[int, Field(ge=1)] = 5000
    """Optimiser steps, where the command gives neither --steps nor --minutes."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Patches a step, of each process where several train."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Largest learning rate."""
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop", "muon"] = "adamw"
    """sgd has Nesterov's momentum. muon makes the singular values of each step of a hidden layer's kernel alike, and is
    adamw for the other weights."""
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Momentum of sgd and rmsprop, of which nnU-Net's is 0.99, and of muon, where 0.95 is usual."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decays of the two averages of adam and adamw, and of what muon leaves to it."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay: with adamw by itself, with the others as a part of the gradient."""
    decayed: Literal["all", "kernels"] = "all"
    """What weight decay is applied to; kernels: to no bias, and to no scale or shift of a normalisation."""
    accumulated_batches: Count = 1
    """Batches a step, one after the other: the gradient of a larger batch in the memory of one. A loss over the batch
    is that of each."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises linearly; with one_cycle, along half a cosine."""
    schedule: Literal["cosine", "polynomial", "one_cycle", "constant"] = "cosine"
    """How it falls afterwards; the polynomial's power is 0.9. one_cycle starts from 1/25 of the largest rate, and ends
    at 1/250000 of it."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which then is what is validated and kept; 0: none."""
    gradient_clip: Annotated[float, Field(gt=0)] = 12.0
    """Largest norm of the gradient."""
    precision: TrainingPrecision = "auto"
    """What the network computes in; weights, loss and optimiser are fp32 in each. auto: on a CPU bf16 where it computes
    in that itself, else fp32; on a GPU bf16 where it does, else fp16, whose loss is scaled. fp16 is for GPUs alone."""
    loss: Annotated[tuple[LossTerm, ...], Field(min_length=1)] = (
        OverlapTerm(kind="dice"),
        CrossEntropyTerm(kind="cross_entropy"),
    )
    """Terms that are added up."""
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight of each output in every term, in their order: with softmax, the background comes first. Equal unless
    given."""
    boundary_weight: Annotated[float, Field(ge=0)] = 0.0
    """How much more than 1 a voxel at the surface of a label weighs in cross-entropy and focal loss."""
    boundary_sigma_mm: Positive = 2.0
    """The further weight falls off with the distance from the surface as a Gaussian of this width does. It is in voxels
    where the recipe has no spacing."""
    ignored_label: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Value in the training labels of voxels that nobody judged: they are left out of the loss, of the choice of
    patches and of validation."""
    deep_supervision_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight of each supervised output, full resolution first; each half of the one above it unless given. Their sum
    is brought to 1."""
    foreground_fraction: Probability = 0.5
    """Share of patches centred on a voxel of a label; the rest is anywhere."""
    balance: Literal["case", "label"] = "case"
    """What such patches have equally many of. case: cases, and in each one those of its labels. label: labels, each
    from the cases that hold it, however few these are."""
    validations: Annotated[int, Field(ge=1)] = 10
    """Validations over the run, the last at its end (where a fold is held out)."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop early after this many validations without a better one."""
    held_out: tuple[str, ...] = ()
    """Names of cases that are never trained on nor validated with: they are kept for a test."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds of the cross-validation."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split and of every random choice."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to the patches."""

    @model_validator(mode="before")
    @classmethod
    def _weights_of_two_terms(cls, content: Any) -> Any:
        """Models of version 0.1 have a weight each for Dice and cross-entropy, and no other loss."""
        if not isinstance(content, dict) or not {"dice_weight", "cross_entropy_weight"} & content.keys():
            return content
        rest = dict(content)
        weights = {kind: rest.pop(f"{kind}_weight", 1.0) for kind in ("dice", "cross_entropy")}
        return {"loss": [{"kind": kind, "weight": weight} for kind, weight in weights.items() if weight], **rest}


class PostprocessRule(Section):
    """What is done to one label of a mask, in this order."""

    label: int
    """Its value."""
    largest_component: bool = False
    """Keep only the largest connected component."""
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    """Remove components smaller than this."""
    fill_holes: bool = False
    """Fill background that the label encloses."""


class Recipe(Section):
    """One segmentation task."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the model."""
    version: str = "1.0"
    """Version of the model."""
    description: str = ""
    """What it segments, in what."""
    channels: Annotated[tuple[ChannelConfig, ...], Field(min_length=1)]
    """Input channels, in their order."""
    labels: Annotated[tuple[LabelConfig, ...], Field(min_length=1)]
    """Labels, in ascending order of value; with a sigmoid output, in the order of the network's outputs."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: a voxel has one label. sigmoid: labels are regions that may overlap, and later ones paint over earlier
    ones in the mask."""
    orientation: str = "RAS"
    """Directions in which D, H and W grow (three axcodes), or the file's own axes in an order such as stored-KJI."""
    spacing_mm: Spacing | None = None
    """Voxel spacing along D, H, W that scans are resampled to; the scan's own unless given."""
    window: Triple
    """Size of the patches in training and of the sliding window, along D, H, W."""
    intensity: IntensityConfig = IntensityConfig()
    """How voxel values become network input, where a channel doesn't say so itself."""
    crop: Literal["none", "nonzero"] = "none"
    """nonzero: the network sees the box alone in which a channel isn't 0; all outside it is background."""
    resampling: ResamplingConfig = ResamplingConfig()
    """How scans are put on the model's grid."""
    network: NetworkConfig = NetworkConfig()
    """The U-Net."""
    tile_step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Largest step from window to window, as a share of the window."""
    mirroring: MirroringConfig = MirroringConfig()
    """Mirrored passes."""
    postprocess: tuple[PostprocessRule, ...] = ()
    """What is done to the mask, label by label."""
    training: TrainingConfig = TrainingConfig()
    """How the network is trained."""

    @field_validator("orientation")
    @classmethod
    def _orientation(cls, orientation: str) -> str:
        if orientation not in ORIENTATIONS and orientation not in STORED_ORIENTATIONS:
            raise ValueError(
                f"{orientation!r} is neither three axcodes such as RAS, LPS or SAR nor an order such as {STORED_KJI}"
            )
        return orientation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        values = [label.value for label in self.labels]
        if len(set(values)) < len(values):
            raise ValueError(f"label values {values} are not different")
        if self.output == "softmax" and values != sorted(values):
            raise ValueError(f"label values {values} are not ascending, as a softmax output needs them")
        names = [label.name for label in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"label names {names} are not different")
        if self.output == "softmax" and any(label.members for label in self.labels):
            raise ValueError("labels with members are overlapping regions: they need output: sigmoid")
        if unknown := sorted({rule.label for rule in self.postprocess} - set(values)):
            raise ValueError(f"postprocess names the labels {unknown}; labels are {values}")
        if not set(self.mirroring.axes) <= set(self.training.augmentation.flip_axes):
            raise ValueError(
                f"mirroring axes {self.mirroring.axes} must be among those that training flips,"
                f" {self.training.augmentation.flip_axes}"
            )
        return self

    @model_validator(mode="after")
    def _training_fits(self) -> Self:
        training, supervised = self.training, self.network.supervised
        if training.class_weights and len(training.class_weights) != self.outputs:
            raise ValueError(f"class_weights has {len(training.class_weights)} entries for {self.outputs} outputs")
        if training.deep_supervision_weights and len(training.deep_supervision_weights) != supervised:
            raise ValueError(
                f"deep_supervision_weights has {len(training.deep_supervision_weights)} entries for {supervised}"
                " supervised outputs"
            )
        for name in ("class_weights", "deep_supervision_weights"):
            if (given := getattr(training, name)) and not any(given):
                raise ValueError(f"{name} are all 0: nothing would be trained")
        if training.ignored_label in self.training_values:
            raise ValueError(f"ignored_label {training.ignored_label} is one of the values that labels have")
        return self

    @model_validator(mode="after")
    def _flips_fit(self) -> Self:
        swapped = {value for pair in self.training.augmentation.swapped_labels for value in pair}
        if unknown := sorted(swapped - self.training_values):
            raise ValueError(f"swapped_labels names the values {unknown}; labels have {sorted(self.training_values)}")
        if swapped and self.side_axis is None:
            raise ValueError(f"swapped_labels needs an orientation that says where left is, not {self.orientation}")
        if swapped and self.side_axis in self.mirroring.axes:
            raise ValueError(f"mirroring along axis {self.side_axis} would mix up the labels that swapped_labels pairs")
        return self

    @property
    def side_axis(self) -> int | None:
        """Tensor axis from left to right or back; None where the orientation is the file's own."""
        stored = self.orientation in STORED_ORIENTATIONS
        return None if stored else next(axis for axis, letter in enumerate(self.orientation) if letter in "LR")

    @property
    def training_values(self) -> set[int]:
        """Values of the training labels that are trained on, beside 0."""
        return {value for label in self.labels for value in (label.members or (label.value,))}

    @property
    def outputs(self) -> int:
        """Number of the network's output channels: with softmax, the background has one too."""
        return len(self.labels) + (self.output == "softmax")

    @property
    def intensities(self) -> tuple[IntensityConfig, ...]:
        """How the values of each channel become network input."""
        return tuple(channel.intensity or self.intensity for channel in self.channels)

    def label_table(self) -> tuple[Label, ...]:
        """Return the labels as the rest of volseg takes them, in ascending order of value."""
        return tuple(sorted((label.label() for label in self.labels), key=lambda label: label.value))


def validation_problem(error: ValidationError) -> str:
    """One line from a pydantic error: where, what was given, what is wrong."""
    problems = []
    locs = [item["loc"] for item in error.errors()]
    for item in error.errors():
        depth = len(item["loc"])
        if item["type"] == "too_short" and any(loc[:depth] == item["loc"] != loc for loc in locs):
            continue  # it only counts the entries that have no problem of their own
        place = ".".join(str(part) for part in item["loc"]) or "recipe"
        if item["type"] == "extra_forbidden":
            problems.append(f"{place}: no such key")
        else:
            given = item["input"]
            whole = isinstance(given, dict | BaseModel) or item["type"] == "json_invalid"
            shown = "" if whole else f" (got {given!r})"
            problems.append(f"{place}: {item['msg']}{shown}")
    return "; ".join(problems)


def recipe_from_dict(content: Any, where: str) -> Recipe:
    """Recipe from parsed YAML or JSON; `where` names it in errors."""
    if not isinstance(content, dict):
        raise RecipeError(f"{where}: not a recipe: expected keys and values, found {type(content).__name__}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {validation_problem(error)}") from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises
    ------
    RecipeError
        The file is absent, not YAML, or holds a key or value that isn't allowed; the message names it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    return recipe_from_dict(content, str(path))
