"""What one labelled case is like."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volseg.datasets.cases import Case
from volseg.datasets.images import load_images
from volseg.errors import InputError
from volseg.geometry import AxisMap
from volseg.labels.canvas import plain, renumbered
from volseg.labels.read import is_label_map, load_labels, load_labels_as
from volseg.planning.naming import Region
from volseg.preprocess.grid import content_box
from volseg.volume import Label, LabelVolume, Volume, Voxels

#: Values of a case's foreground that are kept of each channel, evenly spaced: percentiles need no more.
SAMPLE = 10_000

Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Values:
    """One channel of one case: its lowest value, and those inside labels.

    Attributes
    ----------
    lowest
        Lowest value of the whole scan.
    count, mean, squares
        Number of voxels with a label, their mean, and the sum of their squared distances from it.
    sample
        Sample of at most `SAMPLE` of their values, float32.
    """

    lowest: float
    count: int
    mean: float
    squares: float
    sample: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Measured:
    """One case. R, A, S are the axes to the patient's right, front and top.

    Attributes
    ----------
    name
        Name of the case.
    shape, spacing_mm
        Voxels, and their spacing, along R, A, S.
    orientation
        Axcodes of the file.
    modality
        DICOM's term, where the source says so.
    content
        Voxels along R, A, S of the smallest box around what isn't 0.
    voxels
        Number of voxels of each label value that occurs.
    centres_mm
        Centres of the labels, along R, A, S.
    touching
        Pairs of label values with voxels side by side.
    channels
        Values of each channel.
    notes
        Notes on what is unusual about its labels.
    """

    name: str
    shape: tuple[int, int, int]
    spacing_mm: Triple
    orientation: str
    modality: str | None
    content: tuple[int, int, int]
    voxels: dict[int, int]
    centres_mm: dict[int, Triple]
    touching: frozenset[tuple[int, int]]
    channels: tuple[Values, ...]
    notes: tuple[str, ...]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm) / 1000

    @property
    def content_share(self) -> float:
        """Share of the grid that the content's box takes."""
        return math.prod(self.content) / math.prod(self.shape)


class Names:
    """Values of labels that have names but no numbers: segments of a SEG, regions of an RTSTRUCT.

    Parameters
    ----------
    regions
        The dataset's own labels. Without any, each new name gets the next value.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions = tuple(regions)
        self.found: dict[str, Region] = {}
        self.numbered = False

    def read(self, case: Case, image: Volume) -> LabelVolume:
        """Labels of a case on the grid of its image.

        Raises
        ------
        RefusalError
            As `load_labels`; code ``unsupported`` also where some cases' labels have names and others' only numbers.
        """
        if is_label_map(case.label):
            self.numbered = True
            labels = load_labels(case.label, image)
        elif self.regions:
            table = [Label(value=r.members[0], name=r.name, colour=(0, 0, 0)) for r in self.regions]
            return load_labels_as(case.label, image, sorted(table, key=lambda label: label.value))
        else:
            labels = load_labels(case.label, image)
            for label in labels.labels:
                value = len(self.found) + 1
                self.found.setdefault(plain(label.name), Region(value, label.name, (value,)))
            values = {label.name: self.found[plain(label.name)].value for label in labels.labels}
            table = [Label(value=value, name=name, colour=(0, 0, 0)) for name, value in values.items()]
            table.sort(key=lambda label: label.value)
            labels = LabelVolume(renumbered(labels, values), image.geometry, tuple(table), labels.source)
        if self.found and self.numbered:
            raise InputError(
                "some cases have labels with names, others label maps of numbers: without a dataset.json nothing says"
                " which number is which name",
                code="unsupported",
                path=case.label,
            )
        return labels


def measure(case: Case, names: Names, ignored: int | None = None) -> Measured:
    """Read a case and measure it; voxels of the value `ignored` have no label.

    Raises
    ------
    RefusalError
        An image or labels that can't be read, or that don't lie on one grid.
    """
    volume = load_images(case)
    labels = names.read(case, volume)
    if ignored is not None:
        labels = labels.with_array(np.where(labels.array == ignored, 0, labels.array).astype(labels.array.dtype))
    turning = AxisMap.between(volume.geometry.orientation, "RAS")
    geometry = volume.geometry.turned(turning)
    content = content_box(turning.apply(volume.array_CIJK)).shape
    inside = labels.array != 0
    channels = tuple(_values(channel, inside) for channel in volume.array_CIJK)
    del inside
    array = turning.apply(labels.array)
    around = content_box(array[None])
    part = array[around.slices]
    voxels, centres = _places(part, geometry.spacing_mm)
    return Measured(
        name=case.name,
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        orientation=volume.geometry.orientation,
        modality=volume.source.modality,
        content=content,
        voxels=voxels,
        centres_mm=centres,
        touching=_touching(part),
        channels=channels,
        notes=labels.source.notes,
    )


def _values(channel: Voxels, inside: npt.NDArray[np.bool_]) -> Values:
    values = channel[inside].astype(np.float64)
    if not values.size:
        return Values(float(channel.min()), 0, 0.0, 0.0, np.zeros(0, np.float32))
    mean = float(values.mean())
    sample = values[:: math.ceil(values.size / SAMPLE)].astype(np.float32)
    return Values(float(channel.min()), values.size, mean, float(np.square(values - mean).sum()), sample)


def _places(array_RAS: Voxels, spacing_mm: Triple) -> tuple[dict[int, int], dict[int, Triple]]:
    """Number of voxels of each label, and its centre from the array's corner, in mm.

    A slab at a time: the indices of all voxels of a large scan would take gigabytes.
    """
    size = int(array_RAS.max(initial=0)) + 1
    counts = np.zeros(size, np.int64)
    sums = np.zeros((3, size))
    a, s = (index.ravel().astype(np.float64) for index in np.indices(array_RAS.shape[1:]))
    for r, slab in enumerate(array_RAS):
        flat = slab.ravel()
        here = np.bincount(flat, minlength=size)
        counts += here
        sums[0] += r * here
        sums[1] += np.bincount(flat, weights=a, minlength=size)
        sums[2] += np.bincount(flat, weights=s, minlength=size)
    values = [int(value) for value in np.flatnonzero(counts) if value]
    centres = sums / np.maximum(counts, 1) * np.array(spacing_mm)[:, None]
    places = {value: tuple(centres[:, value].tolist()) for value in values}
    return {value: int(counts[value]) for value in values}, {v: (p[0], p[1], p[2]) for v, p in places.items()}


def _touching(array_RAS: Voxels) -> frozenset[tuple[int, int]]:
    """Pairs of labels, the smaller value first, with voxels that share a face."""
    pairs: set[tuple[int, int]] = set()
    for axis in range(3):
        moved = np.moveaxis(array_RAS, axis, 0)
        for before, after in itertools.pairwise(moved):
            border = (before != after) & (before != 0) & (after != 0)
            if border.any():
                both = np.stack([before[border], after[border]])
                pairs.update((int(a), int(b)) for a, b in np.unique(np.sort(both, axis=0), axis=1).T)
    return frozenset(pairs)
