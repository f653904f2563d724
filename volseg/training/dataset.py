"""Labelled cases, prepared for the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from volseg.config import Recipe
from volseg.datasets.cases import Case
from volseg.datasets.images import load_images
from volseg.errors import InputError
from volseg.labels.read import check_values, is_label_map, load_labels, load_labels_as
from volseg.preprocess import Prepared, prepare, prepare_labels
from volseg.training.synthesis.label_map import LabelMap
from volseg.volume import LabelVolume, Volume

#: Indices of this many voxels are kept a label: those of a whole liver would take as much memory as its scan.
MANY = 10_000


@dataclass(frozen=True)
class TrainingCase:
    """One case in memory.

    Attributes
    ----------
    name
        Name of the case.
    prepared
        Network input, and the way back to the source's grid.
    labels_DHW
        Labels on the model's grid, int32.
    reference
        Labels on the source's grid, as a flawless prediction would paint them.
    foreground
        Indices (N, 3) of the voxels of each label that occurs, by value, on the model's grid; of many a random choice.
    intensity
        0.5th and 99.5th percentile of the source's values, one pair a channel.
    notes
        Notes on what is unusual about its labels.
    judged
        Indices (N, 3) of the voxels on the model's grid that aren't ignored, where some are; of many a random choice.
    ignored
        Mask of the ignored voxels on the source's grid, where some are.
    label_map
        Label map that synthetic images are made of.
    has_image
        Whether it has an image of its own.
    """

    name: str
    prepared: Prepared
    labels_DHW: Tensor
    reference: LabelVolume
    foreground: dict[int, Tensor]
    intensity: tuple[tuple[float, float], ...]
    notes: tuple[str, ...] = ()
    judged: Tensor | None = None
    ignored: npt.NDArray[np.bool_] | None = None
    label_map: LabelMap | None = None
    has_image: bool = True
    #: Its labels are on the model's grid.
    spacing_mm = None


def read_labels(case: Case, recipe: Recipe, image: Volume) -> LabelVolume:
    """Read a case's labels on the grid of its image, with the values that the recipe trains on.

    A SEG's segments, an RTSTRUCT's regions and masks are the recipe's labels of the same names. Where the recipe joins
    several values into one label, those have no names of their own: the file's numbers are taken for them. A label map
    may also hold the recipe's ignored label.
    """
    ignored = recipe.training.ignored_label
    if any(len(label.members) > 1 for label in recipe.labels) or (ignored is not None and is_label_map(case.label)):
        labels = load_labels(case.label, image)
        check_values(labels, recipe.training_values | (set() if ignored is None else {ignored}), case.label)
    else:
        by_value = {(label.members or (label.value,))[0]: label.label() for label in recipe.labels}
        table = [replace(label, value=value) for value, label in by_value.items()]
        labels = load_labels_as(case.label, image, table)
    return replace(labels, labels=recipe.label_table())


def images_for(recipe: Recipe, case: Case) -> Volume:
    """Read the channels that a recipe names, in its order, as one volume; they must be as many as the recipe's."""
    joined = load_images(case, [channel.name for channel in recipe.channels])
    if joined.channels != len(recipe.channels):
        raise InputError(
            f"has {joined.channels} channels, the recipe {len(recipe.channels)}", code="channels", path=case.images[0]
        )
    return joined


def paint(array: npt.NDArray[np.unsignedinteger], recipe: Recipe) -> npt.NDArray[np.unsignedinteger]:
    """Mask of a training label map, as a flawless prediction would paint it.

    Where labels are regions, later ones are over earlier ones; what is ignored is background.
    """
    if recipe.output == "softmax":
        ignored = recipe.training.ignored_label
        return array if ignored is None else np.where(array == ignored, np.zeros_like(array), array)
    mask = np.zeros_like(array)
    for label in recipe.labels:
        mask[np.isin(array, label.members or (label.value,))] = label.value
    return mask


def prepare_case(case: Case, recipe: Recipe) -> TrainingCase:
    """Read and prepare one case.

    Raises
    ------
    RefusalError
        An image or label map that can't be read, holds other labels than the recipe, or where the two differ in grid.
    """
    volume = images_for(recipe, case)
    reference = read_labels(case, recipe, volume)
    prepared = prepare(volume, recipe)
    labels = prepare_labels(reference, recipe, prepared.box)
    ignored = recipe.training.ignored_label
    found = {int(value) for value in np.unique(labels.numpy())} - {0, ignored}
    foreground = {value: some_voxels(labels == value) for value in sorted(found)}
    lost = sorted({int(value) for value in np.unique(reference.array)} - {0, ignored} - found)
    intensity = tuple(
        (float(low), float(high)) for low, high in (np.percentile(c, [0.5, 99.5]) for c in volume.array_CIJK)
    )
    painted = reference.with_array(paint(reference.array, recipe))
    notes = reference.source.notes
    if lost:
        notes = (*notes, f"labels {lost} have no voxel on the model's grid: they are too small for its spacing")
    unjudged = reference.array == ignored
    judged = some_voxels(labels.ne(ignored)) if ignored is not None and unjudged.any() else None
    if judged is not None and not len(judged):
        raise InputError(f"holds the ignored label {ignored} alone", code="unsupported", path=case.label)
    return TrainingCase(
        case.name,
        prepared,
        labels.to(torch.int32),
        painted,
        foreground,
        intensity,
        notes,
        judged,
        None if judged is None else unjudged,
    )


def some_voxels(mask_DHW: Tensor) -> Tensor:
    """(N, 3) int32 indices of voxels that are True; of more than `MANY`, a random choice that is always the same."""
    voxels = mask_DHW.nonzero()
    if len(voxels) > MANY:
        voxels = voxels[np.sort(np.random.default_rng(0).choice(len(voxels), MANY, replace=False))]
    return voxels.to(torch.int32)
