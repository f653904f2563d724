"""The recipe's ``training.synthesis``: images made of label maps, and trained on in place of scans, or beside them.

After Billot et al., SynthSeg, Medical Image Analysis 2023, arXiv:2107.09559: a network that sees every contrast in
training, however unlike a scanner's, knows shapes and not contrasts.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from volseg.config.section import Factors, Positive, Probability, Section, ascending

Value = Annotated[int, Field(ge=0, le=65535)]
NonNegative = Annotated[float, Field(ge=0)]
Span = Annotated[tuple[NonNegative, NonNegative], AfterValidator(ascending)]
#: Mean and spread, over scans, of a tissue's mean; then of its standard deviation.
Prior = tuple[float, NonNegative, NonNegative, NonNegative]


class StructureConfig(Section):
    """What one value of the label maps is."""

    value: Value
    """Value in the label maps."""
    label: Value = 0
    """Label that it is trained as; 0: background."""
    mirror: Value | None = None
    """Value of the same structure on the other side, which it becomes in a flip from left to right; itself unless
    given."""
    tissue: Annotated[int, Field(ge=0, le=999)]
    """Number of the tissue whose intensity it has where intensities are drawn freely: structures that share it look
    alike."""
    kind: Annotated[int, Field(ge=0, le=999)] = 0
    """Row of a contrast's `priors` that it takes its intensity from."""


class ContrastConfig(Section):
    """A contrast whose intensities are known, such as T1."""

    name: str
    """Name for people."""
    weight: Positive
    """Weight with which it is drawn, in proportion to the other contrasts and to `free_weight`."""
    priors: tuple[Prior | None, ...]
    """Four numbers for each kind of tissue, from 0 on: mean and spread of its mean, mean and spread of its standard
    deviation, on a scale of 0 to 255. null: it is drawn freely.
    """


class SynthesisConfig(Section):
    """How an image is made of a label map. Rotation, scaling, flips and elastic deformation are `augmentation`'s.

    A probability of 0 leaves a part out. Lengths are in millimetres and intensities of 0 to 255, so that the model's
    grid can be changed alone.
    """

    share: Probability = 1.0
    """Share of patches that are synthetic; the others are of real images, where cases have one."""
    structures: Annotated[tuple[StructureConfig, ...], Field(min_length=1, max_length=255)]
    """Every value that the label maps hold."""

    contrasts: tuple[ContrastConfig, ...] = ()
    """Contrasts whose intensities are known."""
    free_weight: NonNegative = 1.0
    """Weight with which every tissue's intensity is drawn freely instead: no contrast that a scanner makes."""
    mean_range: Span = (0.0, 255.0)
    """Smallest and largest mean of a tissue that is drawn freely."""
    spread_range: Span = (0.0, 25.0)
    """Smallest and largest standard deviation of its voxels."""
    dark_background_probability: Probability = 0.7
    """Probability of a background that is nearly black, as air is; else it is drawn like any tissue."""

    stripped_probability: Probability = 0.2
    """Probability of a head without what isn't brain, as tools that strip skulls leave it."""
    kept_fluid_probability: Probability = 0.5
    """Probability that a stripped head keeps its fluid, the values of `fluid`."""
    fluid: tuple[Value, ...] = ()
    """Values that are around the brain and trained as background."""

    blur_mm: Span = (0.3, 0.8)
    """Smallest and largest standard deviation of the Gaussian that blurs every image, along each axis."""
    thick_probability: Probability = 0.5
    """Probability of thick slices, along an axis that is drawn."""
    thickness_mm: Factors = (2.0, 7.0)
    """Thinnest and thickest slice, one behind the other without a gap."""

    bias_probability: Probability = 0.8
    """Probability of a smooth change of brightness, as a coil's sensitivity makes it."""
    bias_strength: NonNegative = 0.5
    """Largest logarithm of its factor."""
    bias_spacing_mm: Positive = 70.0
    """Distance over which it changes."""
    gamma_strength: NonNegative = 0.3
    """Standard deviation of the logarithm of the exponent that bends the intensities."""

    ghost_probability: Probability = 0.1
    """Probability of ghosts, as motion during the scan makes them: fainter copies, displaced along an axis."""
    ghost_strength: Probability = 0.15
    """Largest share of a ghost in the image."""
    noise_probability: Probability = 0.8
    """Probability of noise."""
    noise_std: NonNegative = 0.04
    """Largest standard deviation of the noise, as a share of the image's range."""
    rician_probability: Probability = 0.5
    """Probability that the noise is that of a magnitude image (Rician); else it is Gaussian."""

    cut_probability: Probability = 0.25
    """Probability of a field of view that ends inside the patch."""
    cut_share: Probability = 0.4
    """Largest share of an axis that is cut off, at either end."""
    scan_scale: Factors = (0.7, 1.4)
    """Smallest and largest factor of the normalised patch: a scan is normalised as a whole, and its standard deviation
    isn't a patch's."""
    scan_shift: NonNegative = 0.3
    """Largest shift of the normalised patch, for the same reason."""

    scan_spacing_mm: Factors = (0.4, 7.0)
    """Smallest and largest spacing of the scans that the images stand for: `predict` compares a scan with it."""
    scan_extent_mm: Factors = (70.0, 260.0)
    """Smallest and largest field of view of such scans."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        values = [structure.value for structure in self.structures]
        if len(set(values)) < len(values):
            raise ValueError("structures name a value twice")
        if 0 not in values:
            raise ValueError("no structure has the value 0, which is what lies around a map")
        mirrors = {structure.value: structure.mirror for structure in self.structures if structure.mirror is not None}
        if wrong := sorted(value for value, mirror in mirrors.items() if mirrors.get(mirror, mirror) != value):
            raise ValueError(f"structures: the mirror of {wrong[0]} isn't one whose mirror it is")
        if unknown := sorted(set(self.fluid) - set(values)):
            raise ValueError(f"fluid names the values {unknown}, which structures don't")
        if not self.contrasts and not self.free_weight:
            raise ValueError("no contrast is ever drawn: give contrasts or a free_weight above 0")
        kinds = {structure.kind for structure in self.structures}
        for contrast in self.contrasts:
            if absent := sorted(kind for kind in kinds if kind >= len(contrast.priors)):
                raise ValueError(f"contrast {contrast.name} has no prior for the kinds {absent}; null draws freely")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """Every value of the label maps, ascending."""
        return tuple(sorted(structure.value for structure in self.structures))
