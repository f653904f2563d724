"""Labels that a file stores on the voxels of an image, in whatever order: put into the image's, without resampling.

Programs store one and the same grid differently: ITK-SNAP and Slicer write LPS where the scan is RAS, converters turn a
DICOM series' axes, and an affine that went through text or single precision comes back some micrometres off.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from volseg.errors import GeometryError
from volseg.geometry import SAME_GRID_MM, Geometry

#: Voxel centres of labels may be off those of their image by this share of its shortest spacing. Rounding is less, and
#: what lies elsewhere is more: half a voxel where two programs differ about a voxel's corner and its centre, a whole
#: one where an index starts at 1.
LATTICE_SHARE = 0.05

_Scalar = TypeVar("_Scalar", bound=np.generic)


def onto(
    array: npt.NDArray[_Scalar], geometry: Geometry, grid: Geometry, wrong: str, path: Path | None
) -> tuple[npt.NDArray[_Scalar], tuple[str, ...]]:
    """Voxels of labels in the order of `grid`: permuted and flipped, each stays where it is.

    Parameters
    ----------
    array
        [i, j, k] on `geometry`.
    geometry
        Grid of the labels.
    grid
        Grid of their image.
    wrong
        First words of the error.
    path
        File of the labels, for the error.

    Returns
    -------
    array, notes
        [i, j, k] on `grid`; what was unusual, a sentence each.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: the grids have other voxels, or some are further apart than `LATTICE_SHARE`.
    """
    axes = geometry.axes_onto(grid)
    turned = geometry if axes is None else geometry.turned(axes)
    allowed_mm = max(SAME_GRID_MM, LATTICE_SHARE * min(grid.spacing_mm))
    if difference := grid.difference(turned, allowed_mm):
        raise GeometryError(f"{wrong}: {difference}", code="grid-mismatch", path=path)
    notes = []
    if axes is not None and not axes.changes_nothing:
        array = axes.apply(array)
        notes.append(
            f"stored as {geometry.orientation}, the image as {grid.orientation}: put into its order, no voxel moves"
        )
    if off := grid.difference(turned):
        notes.append(f"{off} from the image's, taken as the same (up to {allowed_mm:.3g} mm)")
    return array, tuple(notes)
