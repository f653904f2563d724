"""The recipe: one segmentation task.

Axes are those of the tensor, (D, H, W), which the recipe's `orientation` defines.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from volseg.config.augmentation import MirroringConfig
from volseg.config.image import ChannelConfig, IntensityConfig, ResamplingConfig
from volseg.config.labels import LabelConfig
from volseg.config.network import NetworkConfig
from volseg.config.section import Section, Spacing, Triple
from volseg.config.training import TrainingConfig
from volseg.geometry import ORIENTATIONS
from volseg.volume import Label

#: The orientation of models that use a file's own axes, reversed and not reoriented.
STORED_KJI = "stored-KJI"

#: Every order of a file's own axes, not reoriented.
STORED_ORIENTATIONS = tuple(f"stored-{''.join(order)}" for order in itertools.permutations("KJI"))


class PostprocessRule(Section):
    """What is done to one label of a mask, in this order."""

    label: int
    """The label's value."""
    largest_component: bool = False
    """Whether only the largest connected component is kept."""
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    """Volume below which a component is removed."""
    fill_holes: bool = False
    """Whether background that the label encloses is filled."""


class Recipe(Section):
    """One segmentation task."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the model."""
    version: str = "1.0"
    """Version of the model."""
    description: str = ""
    """A sentence for people: what the model segments, in which scans."""
    channels: Annotated[tuple[ChannelConfig, ...], Field(min_length=1)]
    """Input channels, in their order."""
    labels: Annotated[tuple[LabelConfig, ...], Field(min_length=1)]
    """Labels, in ascending order of value; with a sigmoid output, in the order of the network's outputs."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """Kind of the network's output. softmax: a voxel has one label. sigmoid: labels are regions that may overlap, and
    later ones paint over earlier ones in the mask.
    """
    orientation: str = "RAS"
    """Directions in which D, H and W grow (three axcodes), or the file's own axes in an order such as stored-KJI."""
    spacing_mm: Spacing | None = None
    """Voxel spacing along D, H, W that scans are resampled to; the scan's own unless given."""
    window: Triple
    """Size of the patches in training and of the sliding window, along D, H, W."""
    intensity: IntensityConfig = IntensityConfig()
    """Normalisation of voxel values, where a channel doesn't say so itself."""
    crop: Literal["none", "nonzero"] = "none"
    """Box that the network sees. nonzero: the one in which a channel isn't 0; all outside it is background."""
    resampling: ResamplingConfig = ResamplingConfig()
    """Way in which scans are put on the model's grid."""
    network: NetworkConfig = NetworkConfig()
    """The U-Net."""
    tile_step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Largest step from window to window, as a share of the window."""
    mirroring: MirroringConfig = MirroringConfig()
    """Mirrored passes."""
    postprocess: tuple[PostprocessRule, ...] = ()
    """Rules for the mask, label by label."""
    training: TrainingConfig = TrainingConfig()
    """Choices of the training."""

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

    @model_validator(mode="after")
    def _synthesis_fits(self) -> Self:
        synthesis = self.training.synthesis
        if synthesis is None:
            return self
        if self.output != "softmax" or self.training.ignored_label is not None:
            raise ValueError("synthesis is for a softmax output without an ignored label")
        label_of = {structure.value: structure.label for structure in synthesis.structures}
        known = sorted(self.training_values)
        if unknown := sorted(set(label_of.values()) - {0, *known}):
            raise ValueError(f"synthesis.structures names the labels {unknown}; labels are {known}")
        pairs = self.training.augmentation.swapped_labels
        swapped = {a: b for first, second in pairs for a, b in ((first, second), (second, first))}
        for structure in synthesis.structures:
            mirror = structure.value if structure.mirror is None else structure.mirror
            if label_of[mirror] != swapped.get(structure.label, structure.label):
                raise ValueError(
                    f"synthesis.structures: {structure.value} and its mirror {mirror} are trained as {structure.label}"
                    f" and {label_of[mirror]}, which swapped_labels doesn't pair"
                )
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
