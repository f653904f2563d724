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
        Of its case.
    labels_DHW
        (D, H, W) uint8: for each voxel the place of its value in `SynthesisConfig.values`. Background around the head
        is cut off.
    spacing_mm
        Of its voxels along D, H, W.
    foreground
        For each label of the recipe that occurs, by value: (N, 3) indices of voxels, of many a random choice.
    judged
        None: every voxel of a map is.
    """

    name: str
    labels_DHW: Tensor
    spacing_mm: tuple[float, float, float]
    foreground: dict[int, Tensor]
    judged: Tensor | None = None
