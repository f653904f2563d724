"""Masks on an oblique grid."""

from __future__ import annotations

import numpy as np

from volseg.geometry import Geometry
from volseg.volume import Label, LabelVolume, NiftiSource, Source

LABELS = (Label(value=1, name="one", colour=(1, 2, 3)), Label(value=3, name="three", colour=(4, 5, 6)))

SHAPE = (3, 5, 4)


def rotation(degrees: float) -> np.ndarray:
    """About the axis (1, 2, 2) / 3, by Rodrigues' formula."""
    x, y, z = np.array([1.0, 2.0, 2.0]) / 3
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def oblique(degrees: float = 25.0, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) * [0.7, 1.3, 2.9]
    affine[:3, 3] = [-103.2, 41.7, 12.9]
    return Geometry(shape, affine)


def mask_on(geometry: Geometry, said: NiftiSource | None = None, dtype: type = np.uint16) -> LabelVolume:
    array = (np.arange(np.prod(geometry.shape)).reshape(geometry.shape) % 7 == 1).astype(dtype)
    array[1, 2, 3] = 3
    return LabelVolume(array, geometry, LABELS, Source(kind="nifti" if said else "array", nifti=said))
