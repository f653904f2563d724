"""`Volume` (a scan) and `LabelVolume` (its segmentation): voxels, where they are, and what their source said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from volseg.geometry import Geometry

Voxels = npt.NDArray[np.generic]


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
        Which frame of a multi-frame object, from 0; None for an object of a single image.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """The series that a volume was read from.

    Attributes
    ----------
    study_uid, series_uid, frame_of_reference_uid
        Empty where the files leave them blank.
    instances
        In the order of the slices (k).
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
        ``"array"`` for a volume that was made in memory.
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
        What is unusual or was evened out, a sentence each.
    stored
        The grid of the stored slices, where the voxels were resampled onto straight ones (a gantry tilt); masks go
        back there. Else None.
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
        What the source said.

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
        1 to 65535; 0 is the background, which has no Label.
    name
        For people.
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

    Parameters
    ----------
    array
        [i, j, k], unsigned integers; 0 is the background.
    geometry
        The grid, that of the scan it belongs to.
    labels
        What the values mean, in ascending order of value.
    source
        Of the scan.
    algorithm
        What made it, such as ``"hippocampus 1.0"``; empty where that isn't known.
    """

    array: npt.NDArray[np.unsignedinteger]
    geometry: Geometry
    labels: tuple[Label, ...]
    source: Source = field(default_factory=Source)
    algorithm: str = ""

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise ValueError(f"array of shape {self.array.shape} on a grid of shape {self.geometry.shape}")
        if not np.issubdtype(self.array.dtype, np.unsignedinteger):
            raise ValueError(f"labels are unsigned integers, not {self.array.dtype}")
        values = [label.value for label in self.labels]
        if values != sorted(set(values)) or (values and values[0] < 1):
            raise ValueError(f"label values {values} are not positive, different and ascending")

    def with_array(self, array: npt.NDArray[np.unsignedinteger]) -> Self:
        """Return the same segmentation with other voxels on the same grid."""
        return replace(self, array=array)

    def only(self, labels: tuple[Label, ...]) -> Self:
        """Return the segmentation of these labels alone; all others become background."""
        if labels == self.labels:
            return self
        kept = np.zeros(int(self.array.max(initial=0)) + 1, dtype=self.array.dtype)
        for label in labels:
            kept[label.value : label.value + 1] = label.value
        return replace(self, array=kept[self.array], labels=labels)

    def voxel_counts(self) -> Mapping[int, int]:
        """Number of voxels of each label, 0 where it doesn't occur."""
        highest = max((label.value for label in self.labels), default=0)
        counts = np.bincount(self.array.ravel(), minlength=highest + 1)
        return {label.value: int(counts[label.value]) for label in self.labels}
