"""Random changes to training patches, and mirrored passes of prediction."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from volseg.config.section import (
    Axes,
    Count,
    Degrees,
    Factors,
    Positive,
    Probability,
    Section,
    Share,
    ascending,
    for_all_axes,
)


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
    """Probability of a rotation."""
    rotation_degrees: Annotated[tuple[Degrees, Degrees, Degrees], BeforeValidator(for_all_axes)] = (15.0, 15.0, 15.0)
    """Largest rotation about D, H and W, or one number for all. The patch is rotated in millimetres: shapes stay as
    they are whatever the spacing.
    """
    scaling_probability: Probability = 0.2
    """Probability of a change of size."""
    scaling_range: Factors = (0.7, 1.4)
    """Smallest and largest factor."""
    scaling_together: bool = False
    """Whether the factor is the same along all axes."""
    elastic_probability: Probability = 0.0
    """Probability of an elastic deformation: a cubic B-spline between random displacements of points on a coarse grid.
    """
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
    """Probability of a smooth change of brightness over the patch, as a coil's sensitivity makes it."""
    bias_field_range: Factors = (0.7, 1.4)
    """Smallest and largest factor on what is above the patch's lowest value."""
    noise_probability: Probability = 0.1
    """Probability of Gaussian noise."""
    noise_std: Annotated[float, Field(ge=0)] = 0.1
    """Largest standard deviation of the noise, in units of the normalised image."""
    blur_probability: Probability = 0.1
    """Probability of a Gaussian blur."""
    blur_sigma: Factors = (0.5, 1.0)
    """Smallest and largest sigma, in voxels."""
    brightness_probability: Probability = 0.15
    """Probability of a multiplied brightness."""
    brightness_range: Factors = (0.75, 1.25)
    """Smallest and largest factor."""
    contrast_probability: Probability = 0.15
    """Probability of a change of contrast about the patch's mean."""
    contrast_range: Factors = (0.75, 1.25)
    """Smallest and largest factor."""
    low_resolution_probability: Probability = 0.0
    """Probability of a loss of resolution: the nearest voxels of a coarser grid, brought back by a cubic spline."""
    low_resolution_range: Annotated[tuple[Share, Share], AfterValidator(ascending)] = (0.5, 1.0)
    """Smallest and largest size of the coarser grid, as a share of the patch's."""
    inverted_gamma_probability: Probability = 0.0
    """Probability of a gamma curve of the negative image."""
    gamma_probability: Probability = 0.15
    """Probability of a gamma curve."""
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
