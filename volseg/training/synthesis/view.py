"""What of a head a scan shows: without its skull, and cut off by the field of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from volseg.config import SynthesisConfig

View = tuple[slice, slice, slice]


def stripped(
    index_DHW: Tensor, trained: Tensor, fluid: Tensor, config: SynthesisConfig, rng: np.random.Generator
) -> Tensor | None:
    """(D, H, W) bool: what is left of a head whose skull was stripped; None where it wasn't.

    Parameters
    ----------
    index_DHW
        Place of each voxel's value in `SynthesisConfig.values`.
    trained
        (N,) label of each of these.
    fluid
        (N,) whether it is fluid around the brain.
    config
        Probabilities.
    rng
        Generator that is drawn from.
    """
    if rng.random() >= config.stripped_probability:
        return None
    kept = trained > 0
    if rng.random() < config.kept_fluid_probability:
        kept = kept | fluid
    return kept[index_DHW]


def cut_view(shape: Sequence[int], config: SynthesisConfig, rng: np.random.Generator) -> View:
    """The part of a patch that the field of view holds: mostly all of it."""
    parts = [slice(0, size) for size in shape]
    if rng.random() < config.cut_probability:
        for axis, size in enumerate(shape):
            # Each end is cut or left as it is.
            share = rng.uniform(0, config.cut_share, 2) * (rng.random(2) < 0.5)
            parts[axis] = slice(int(size * share[0]), size - int(size * share[1]))
    return parts[0], parts[1], parts[2]


def shown(labels_DHW: Tensor, view: View) -> Tensor:
    """Labels in the field of view, and background around it."""
    result = torch.zeros_like(labels_DHW)
    result[view] = labels_DHW[view]
    return result
