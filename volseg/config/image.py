"""The scan in a recipe: channels, intensities, and how it is put on the model's grid."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from volseg.config.section import Pattern, Quantiles, Range, Section
from volseg.volume import canonical_modality


class IntensityConfig(Section):
    """How voxel values become network input."""

    scheme: Literal["zscore", "fixed", "minmax", "none"] = "zscore"
    """Normalisation. zscore: minus the case's mean, over its standard deviation. fixed: the same with `mean` and `std`.
    minmax: minus the case's minimum, over its range. none: as it is.
    """
    clip_percentiles: Quantiles | None = None
    """Quantiles (0 to 1) of the case that its values are clipped to first."""
    clip: Range | None = None
    """Values that the case is clipped to first."""
    mean: float = 0.0
    """Mean for `fixed`."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation for `fixed`."""
    use_mask: bool = False
    """Whether zscore takes mean and standard deviation of the content alone, and leaves 0 outside. Content is where a
    channel isn't 0, and the holes in it.
    """

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
    """Regular expression for what the headers say of the sequence: Protocol Name, Sequence Name, Pulse Sequence Name,
    Scanning Sequence and Sequence Variant, in this order.
    """

    intensity: IntensityConfig | None = None
    """Normalisation of this channel's values; the recipe's `intensity` unless given."""

    @field_validator("modalities")
    @classmethod
    def _dicom_terms(cls, modalities: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(canonical_modality(name) for name in modalities)


class ResamplingConfig(Section):
    """How scans are put on the model's grid, and the network's answer on the scan's."""

    image_order: Literal[1, 3] = 3
    """Degree of the spline for images: 1 is linear, 3 cubic. The result is clipped to the range of the input."""
    separate_axis: Literal["never", "auto", "always"] = "never"
    """Rule for the axis of the largest spacing, along which the nearest slice is taken, so that interpolation stays
    within slices. auto: where the largest spacing of the scan, or else of the model's grid, is more than three times
    the smallest. always: along the scan's. Never where two axes share the largest spacing.
    """
    scheme: Literal["input", "image"] = "input"
    """Order of the steps. input: the normalised crop is resampled, its outer edges stay in place, and logits are
    interpolated back. image, as TotalSegmentator does: the scan is resampled before crop and normalisation, the centres
    of its outermost voxels stay in place, values are cut to integers, and labels are brought back by the nearest voxel;
    it is linear.
    """

    @model_validator(mode="after")
    def _images_are_linear(self) -> Self:
        if self.scheme == "image" and (self.image_order, self.separate_axis) != (1, "never"):
            raise ValueError("scheme image needs image_order 1 and separate_axis never")
        return self
