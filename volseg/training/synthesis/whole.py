"""A whole synthetic scan of a label map, on the map's own grid: to judge a model by, and to look at."""

from __future__ import annotations

import numpy as np
import torch

from volseg.config import Recipe, SynthesisConfig
from volseg.preprocess.grid import model_axes
from volseg.training.synthesis.artefacts import distorted, normal
from volseg.training.synthesis.intensities import draw_intensities
from volseg.training.synthesis.maps import indexed
from volseg.training.synthesis.resolution import scanned
from volseg.volume import LabelVolume, Source, Volume

#: Values of a scan are 0 to this.
BRIGHTEST = 1000.0


def synthetic_scan(labels: LabelVolume, recipe: Recipe, config: SynthesisConfig, rng: np.random.Generator) -> Volume:
    """Make a scan of one channel; nothing is deformed, stripped or cut off.

    Parameters
    ----------
    labels
        A label map.
    recipe
        Its orientation is that of the scanner's axes.
    config
        Contrasts, resolution and artefacts.
    rng
        Generator that is drawn from.

    Raises
    ------
    InputError
        As `volseg.training.synthesis.maps.indexed`.
    """
    axes = model_axes(labels.geometry, recipe)
    index = torch.from_numpy(np.ascontiguousarray(axes.apply(indexed(labels, config)))).int()
    mean, spread = draw_intensities(config, rng)[:, index]
    image = (mean + spread * normal(mean.shape, rng)).clamp_(min=0)
    d, h, w = labels.geometry.turned(axes).spacing_mm
    image = distorted(scanned(image, (d, h, w), config, rng), (d, h, w), config, rng)
    array = axes.inverse().apply((BRIGHTEST * image.clamp(min=0)).numpy())
    return Volume(np.ascontiguousarray(array), labels.geometry, Source(name=labels.source.name, modality="MR"))
