"""What a label map is in memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LabelMap:
    """A label map in memory.

    Attributes
    ----------
    name
        Name of its case.
    labels_DHW
        (D, H, W) uint8: for each voxel the place of its value in `SynthesisConfig.values`.
    spacing_mm
        Spacing of its voxels along D, H, W.
    foreground
        Indices (N, 3) of the voxels of each label of the recipe that occurs, by value; of many a random choice.
    judged
        Always None: every voxel of a map is judged.
    """

    name: str
    labels_DHW: Tensor
    spacing_mm: tuple[float, float, float]
    foreground: dict[int, Tensor]
    judged: Tensor | None = None
