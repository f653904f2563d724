"""Label maps that images are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.config import Recipe, SynthesisConfig
from volseg.datasets.cases import Case
from volseg.errors import InputError
from volseg.geometry import AxisMap
from volseg.labels.read import load_label_map
from volseg.preprocess import Prepared, model_shape
from volseg.preprocess.grid import model_axes
from volseg.training.dataset import TrainingCase, some_voxels
from volseg.training.synthesis.label_map import LabelMap
from volseg.volume import LabelVolume

#: Intensities of synthetic images are between these.
SCALE = (0.0, 255.0)
#: Stands for a value that no structure has.
UNKNOWN = 255


def value_table(config: SynthesisConfig) -> npt.NDArray[np.uint8]:
    """(65536,) place of each value in `SynthesisConfig.values`; `UNKNOWN`: it has none."""
    table = np.full(65536, UNKNOWN, np.uint8)
    table[list(config.values)] = np.arange(len(config.values))
    return table


def trained_labels(config: SynthesisConfig) -> Tensor:
    """(N,) int32 label that each of `SynthesisConfig.values` is trained as."""
    by_value = {structure.value: structure.label for structure in config.structures}
    return torch.tensor([by_value[value] for value in config.values], dtype=torch.int32)


def indexed(labels: LabelVolume, config: SynthesisConfig) -> npt.NDArray[np.uint8]:
    """For each voxel the place of its value in `SynthesisConfig.values`.

    Raises
    ------
    InputError
        Code ``unsupported``: the map holds a value that the recipe's `structures` don't have.
    """
    index = value_table(config)[labels.array]
    if (index == UNKNOWN).any():
        absent = sorted(set(np.unique(labels.array).tolist()) - set(config.values))
        raise InputError(
            f"{labels.source.name}: holds the values {absent}, which the recipe's synthesis.structures don't name",
            code="unsupported",
        )
    return index


def label_map(labels: LabelVolume, recipe: Recipe, config: SynthesisConfig) -> LabelMap:
    """A label volume, turned to the recipe's orientation, on its own spacing.

    Raises
    ------
    InputError
        As `indexed`.
    """
    axes = model_axes(labels.geometry, recipe)
    index = axes.apply(indexed(labels, config))
    inner = torch.from_numpy(np.ascontiguousarray(index))
    trained = trained_labels(config)[inner.long()]
    found = [int(value) for value in torch.unique(trained) if value]
    d, h, w = labels.geometry.turned(axes).spacing_mm
    foreground = {value: some_voxels(trained == value) for value in found}
    return LabelMap(labels.source.name, inner, (d, h, w), foreground)


def map_case(case: Case, recipe: Recipe, config: SynthesisConfig) -> TrainingCase:
    """A case that has a label map and no image, as training knows cases; its image is empty."""
    labels = load_label_map(case.label)
    made = label_map(labels, recipe, config)
    table = np.zeros(65536, np.uint16)
    table[list(config.values)] = trained_labels(config).numpy()
    reference = LabelVolume(table[labels.array], labels.geometry, recipe.label_table(), labels.source)
    axes: AxisMap = model_axes(labels.geometry, recipe)
    empty = torch.zeros(()).expand(len(recipe.channels), *model_shape(labels.geometry, recipe))
    prepared = Prepared(empty, axes, labels.geometry)
    intensity = (SCALE,) * len(recipe.channels)
    return TrainingCase(
        case.name,
        prepared,
        made.labels_DHW,
        reference,
        made.foreground,
        intensity,
        label_map=made,
        has_image=False,
    )
