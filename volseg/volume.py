"""`Volume` (a scan) and `LabelVolume` (its segmentation): voxels, where they are, and what their source said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from volseg.geometry import Geometry, Shape

Voxels = npt.NDArray[np.generic]
LabelMap = npt.NDArray[np.unsignedinteger]


def canonical_modality(name: str) -> str:
    """DICOM's term for a modality: MRI is MR, PET is PT."""
    upper = name.strip().upper()
    return {"MRI": "MR", "PET": "PT"}.get(upper, upper)


@dataclass(frozen=True, kw_only=True)
class NiftiSource:
    """What a NIfTI header says beside the affine, to be written back with the mask.

    Attributes
    ----------
    sform_code, qform_code
        Kind of space of each transform; 0 where it isn't set.
    units
        Spatial and temporal unit, such as ``("mm", "sec")``.
    qform
        The four rows of the qform's affine, where its code is set and it isn't the volume's affine; else None.
    """

    sform_code: int
    qform_code: int
    units: tuple[str, str]
    qform: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One DICOM image of a volume: where it lies, and its identity.

    Attributes
    ----------
    frame
        Number of the frame in a multi-frame object, or of the tile in a mosaic, from 0; None for an object of a single
        image.
    as_stored
        Whether the slice is the object's image or frame as its header says: not a tile of a mosaic, nor one whose rows
        were stored upside down. Only then can an object refer to it pixel by pixel.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None
    as_stored: bool = True


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """The series that a volume was read from.

    Attributes
    ----------
    study_uid, series_uid, frame_of_reference_uid
        UIDs; empty where the files leave them blank.
    instances
        Instances in the order of the slices (k).
    identity
        Whether a DICOM object can refer to the series: no UID that it needs is blank in the files' data sets.
    """

    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    instances: tuple[Instance, ...]
    identity: bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a volume came from.

    Attributes
    ----------
    kind
        Format of the source, such as ``"dicom"``; ``"array"`` for a volume that was made in memory.
    name
        Case name, safe as a folder name, without patient data.
    path
        File, or the folder that holds the series.
    modality
        DICOM's term (``"CT"``, ``"MR"``), or None where the source doesn't say.
    description
        Series description or file name.
    sha256
        Hash of what the files hold, independent of their names.
    notes
        Notes on what is unusual or was evened out, a sentence each.
    stored
        The grid of the stored slices, where the voxels were resampled onto straight ones (a gantry tilt); masks go back
        there. Else None.
    """

    kind: Literal["nifti", "nrrd", "metaimage", "dicom", "array"] = "array"
    name: str = "volume"
    path: Path | None = None
    modality: str | None = None
    description: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    nifti: NiftiSource | None = None
    dicom: DicomSource | None = None
    stored: Geometry | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan.

    Parameters
    ----------
    array
        Voxels indexed [i, j, k], or [c, i, j, k] where there are channels.
    geometry
        Grid of the last three axes.
    source
        Source of the voxels.

    Raises
    ------
    ValueError
        Where the array's last three axes aren't the geometry's shape.
    """

    array: Voxels
    geometry: Geometry
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4) or self.array.shape[-3:] != self.geometry.shape:
            raise ValueError(
                f"array of shape {self.array.shape} on a grid of shape {self.geometry.shape};"
                " give [i, j, k] or [c, i, j, k]"
            )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.array.ndim == 3 else int(self.array.shape[0])

    @property
    def array_CIJK(self) -> Voxels:
        """The voxels with the channel axis always there."""
        return self.array[None] if self.array.ndim == 3 else self.array

    def with_array(self, array: Voxels) -> Self:
        """Return the same volume with other voxels on the same grid."""
        return replace(self, array=array)


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept of DICOM: value, scheme designator and meaning."""

    value: str
    scheme: str
    meaning: str


#: SNOMED CT's category of a label that is a part of the body.
ANATOMICAL_STRUCTURE = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a value in a `LabelVolume` means.

    Attributes
    ----------
    value
        Value in the mask, 1 to 65535; 0 is the background, which has no Label.
    name
        Name for people.
    colour
        Red, green and blue, 0 to 255.
    code, category, modifier
        DICOM's coded property type, its category, and a modifier such as "Anterior"; a label without a code can't be
        written as DICOM SEG under a standard term and gets a private one.
    """

    value: int
    name: str
    colour: tuple[int, int, int]
    code: Code | None = None
    category: Code = ANATOMICAL_STRUCTURE
    modifier: Code | None = None


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """A segmentation: an integer a voxel, and what each integer means.

    Where labels overlap, `array` is painted: a voxel has one of those that it belongs to. `layers` then hold all of
    every label.

    Parameters
    ----------
    array
        Array [i, j, k] of unsigned integers; 0 is the background.
    geometry
        The grid, that of the scan it belongs to.
    labels
        Labels that the values stand for, in ascending order of value.
    source
        Source of the scan.
    algorithm
        Name of what made it, such as ``"hippocampus 1.0"``; empty where that isn't known.
    layers
        More such arrays, each label's voxels in one of them; none where no labels overlap.
    """

    array: LabelMap
    geometry: Geometry
    labels: tuple[Label, ...]
    source: Source = field(default_factory=Source)
    algorithm: str = ""
    layers: tuple[LabelMap, ...] = ()

    def __post_init__(self) -> None:
        for array in (self.array, *self.layers):
            if array.shape != self.geometry.shape:
                raise ValueError(f"array of shape {array.shape} on a grid of shape {self.geometry.shape}")
            if not np.issubdtype(array.dtype, np.unsignedinteger):
                raise ValueError(f"labels are unsigned integers, not {array.dtype}")
        values = [label.value for label in self.labels]
        if values != sorted(set(values)) or (values and values[0] < 1):
            raise ValueError(f"label values {values} are not positive, different and ascending")

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """Arrays that together hold all of every label: the layers, or the array where there are none."""
        return self.layers or (self.array,)

    def voxels_of(self, label: Label) -> npt.NDArray[np.bool_]:
        """[i, j, k] which voxels belong to a label, whether or not others lie over it."""
        found = np.zeros(self.geometry.shape, np.bool_)
        for each in self.label_maps:
            found |= each == label.value
        return found

    def with_array(self, array: LabelMap) -> Self:
        """Return a segmentation with other voxels on the same grid, none of which belongs to several labels."""
        return replace(self, array=array, layers=())

    def mapped(self, change: Callable[[LabelMap], LabelMap], geometry: Geometry | None = None) -> Self:
        """Return the same segmentation with its array and its layers changed alike.

        Parameters
        ----------
        change
            Function that makes another array of each; it gives a voxel no value that no voxel has.
        geometry
            Grid of what it makes; None: the same.
        """
        layers = tuple(change(layer) for layer in self.layers)
        return replace(self, array=change(self.array), layers=layers, geometry=geometry or self.geometry)

    def only(self, labels: tuple[Label, ...]) -> Self:
        """Return the segmentation of these labels alone; all others become background."""
        if labels == self.labels:
            return self
        highest = max(int(each.max(initial=0)) for each in (self.array, *self.layers))
        kept = np.zeros(highest + 1, dtype=self.array.dtype)
        for label in labels:
            kept[label.value : label.value + 1] = label.value
        return replace(self.mapped(lambda array: kept[array]), labels=labels)

    def voxel_counts(self) -> Mapping[int, int]:
        """Number of voxels of each label in `array`, 0 where it doesn't occur."""
        highest = max((label.value for label in self.labels), default=0)
        counts = np.bincount(self.array.ravel(), minlength=highest + 1)
        return {label.value: int(counts[label.value]) for label in self.labels}


def layered(
    voxels: Iterable[tuple[int, npt.NDArray[np.bool_]]], shape: Shape, dtype: npt.DTypeLike
) -> tuple[LabelMap, ...]:
    """Labels that may overlap as layers: each label in the first in which no other has one of its voxels.

    Parameters
    ----------
    voxels
        Value of each label, and which voxels belong to it: [i, j, k].
    shape, dtype
        Sizes of the layers, and their unsigned type, which holds every value.
    """
    layers: list[LabelMap] = []
    for value, mask in voxels:
        layer = next((layer for layer in layers if not layer[mask].any()), None)
        if layer is None:
            layer = np.zeros(shape, dtype)
            layers.append(layer)
        layer[mask] = value
    return tuple(layers)
