"""Labelled cases, prepared for the network, and random patches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from volseg.config import Recipe
from volseg.errors import GeometryError, InputError
from volseg.loaders import load
from volseg.loaders.dataset import Case
from volseg.loaders.labels import check_values, load_labels, load_labels_as
from volseg.preprocess import Prepared, prepare, prepare_labels
from volseg.volume import LabelVolume, Volume


@dataclass(frozen=True)
class TrainingCase:
    """One case in memory.

    Attributes
    ----------
    name
        Of the case.
    prepared
        Network input, and the way back to the source's grid.
    labels_DHW
        Labels on the model's grid, int32.
    reference
        Labels on the source's grid, as a flawless prediction would paint them.
    foreground
        For each label that occurs, by value: (N, 3) indices of its voxels on the model's grid.
    intensity
        0.5th and 99.5th percentile of the source's values, one pair a channel.
    notes
        What is unusual about its labels.
    """

    name: str
    prepared: Prepared
    labels_DHW: Tensor
    reference: LabelVolume
    foreground: dict[int, Tensor]
    intensity: tuple[tuple[float, float], ...]
    notes: tuple[str, ...] = ()


def training_values(recipe: Recipe) -> set[int]:
    """Values that a training label map may hold beside 0."""
    return {value for label in recipe.labels for value in (label.members or (label.value,))}


def read_labels(case: Case, recipe: Recipe, image: Volume) -> LabelVolume:
    """Read a case's labels on the grid of its image, with the values that the recipe trains on.

    A SEG's segments and an RTSTRUCT's regions are the recipe's labels of the same names. Where the recipe joins several
    values into one label, those have no names of their own: the file's numbers are taken for them.
    """
    if any(len(label.members) > 1 for label in recipe.labels):
        labels = load_labels(case.label, image)
        check_values(labels, training_values(recipe), case.label)
    else:
        by_value = {(label.members or (label.value,))[0]: label.label() for label in recipe.labels}
        table = [replace(label, value=value) for value, label in by_value.items()]
        labels = load_labels_as(case.label, image, table)
    return replace(labels, labels=recipe.label_table())


def load_images(case: Case, recipe: Recipe) -> Volume:
    """Read a case's channels as one volume; they must lie on one grid and be as many as the recipe's."""
    volumes = [load(path) for path in case.images]
    first = volumes[0]
    for path, volume in zip(case.images, volumes, strict=True):
        if difference := first.geometry.difference(volume.geometry):
            raise GeometryError(f"not on the grid of {case.images[0]}: {difference}", code="grid-mismatch", path=path)
    array = first.array if len(volumes) == 1 else np.concatenate([volume.array_CIJK for volume in volumes])
    joined = first.with_array(array)
    if joined.channels != len(recipe.channels):
        raise InputError(
            f"has {joined.channels} channels, the recipe {len(recipe.channels)}", code="channels", path=case.images[0]
        )
    return joined


def paint(array: npt.NDArray[np.unsignedinteger], recipe: Recipe) -> npt.NDArray[np.unsignedinteger]:
    """Mask of a training label map: where labels are regions, later ones over earlier ones, as in prediction."""
    if recipe.output == "softmax":
        return array
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
    volume = load_images(case, recipe)
    reference = read_labels(case, recipe, volume)
    prepared = prepare(volume, recipe)
    labels = prepare_labels(reference, recipe, prepared.box)
    found = {int(value) for value in np.unique(labels.numpy())} - {0}
    foreground = {value: (labels == value).nonzero().to(torch.int32) for value in sorted(found)}
    intensity = tuple(
        (float(low), float(high)) for low, high in (np.percentile(c, [0.5, 99.5]) for c in volume.array_CIJK)
    )
    painted = reference.with_array(paint(reference.array, recipe))
    notes = reference.source.notes
    return TrainingCase(case.name, prepared, labels.to(torch.int32), painted, foreground, intensity, notes)


def random_patch(
    cases: Sequence[TrainingCase], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor, TrainingCase]:
    """Cut one window out of a random case.

    With the recipe's `foreground_fraction` it is centred on a voxel of a label, each label that occurs equally often;
    else it is anywhere. Where the case is smaller than the window it stands at a random place in it, 0 around it.

    Returns
    -------
    tuple
        (C, D, H, W) float32, (1, D, H, W) int32, and the case.
    """
    case = cases[int(rng.integers(len(cases)))]
    image, labels = case.prepared.tensor_CDHW, case.labels_DHW[None]
    centre: list[int] | None = None
    if case.foreground and rng.random() < recipe.training.foreground_fraction:
        values = list(case.foreground)
        voxels = case.foreground[values[rng.integers(len(values))]]
        centre = voxels[rng.integers(len(voxels))].tolist()
    slices, padding = [], []
    for axis, length in enumerate(recipe.window):
        size = image.shape[axis + 1]
        spare = size - length
        if spare <= 0:
            start, before = 0, int(rng.integers(-spare + 1))
            padding.append((before, -spare - before))
        else:
            wanted = int(rng.integers(spare + 1)) if centre is None else centre[axis] - length // 2
            start = min(max(wanted, 0), spare)
            padding.append((0, 0))
        slices.append(slice(start, start + length))
    place = (slice(None), *slices)
    pads = [count for pair in reversed(padding) for count in pair]
    return functional.pad(image[place], pads), functional.pad(labels[place], pads), case
