"""The surface of a label as triangles: along the faces of its voxels, then smoothed.

Marching cubes would need scikit-image or VTK, for a surface that cuts half of each outer voxel off. The faces enclose
the voxels' volume exactly, and smoothing them (Taubin, "Curve and surface smoothing without shrinkage", 1995) keeps it
nearly; how nearly is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from volseg.export.regions import Box, Mask, Regions
from volseg.geometry import Floats, Geometry
from volseg.volume import Label, LabelVolume

#: Steps of smoothing: fewer leave the voxels' stairs.
SMOOTHING = 15
#: How far a step moves a corner towards its neighbours' mean, and how far the step after it moves it back.
_IN, _OUT = 0.5, -0.53

Triangles = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface.

    Attributes
    ----------
    corners
        (N, 3) RAS+ mm.
    triangles
        (M, 3) places among the corners, counter-clockwise from outside.
    """

    corners: Floats
    triangles: Triangles

    @property
    def volume_ml(self) -> float:
        """What it encloses, by the divergence theorem."""
        a, b, c = (self.corners[self.triangles[:, n]] - self.corners.mean(axis=0) for n in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6000)

    def smoothed(self, steps: int) -> Surface:
        """The surface with its stairs worn down."""
        matrix = _neighbours(self.triangles, len(self.corners))
        corners = self.corners
        for _ in range(steps):
            for share in (_IN, _OUT):
                corners = corners + share * (matrix @ corners - corners)
        return replace(self, corners=corners)


def surfaces(mask: LabelVolume, steps: int = SMOOTHING) -> Iterator[tuple[Label, Surface]]:
    """The surface of each label that occurs.

    Parameters
    ----------
    mask
        The segmentation.
    steps
        Steps of smoothing; 0: the faces of the voxels.
    """
    for label, box, inside in Regions(mask):
        if inside.any():
            yield label, faces(inside, box, mask.geometry).smoothed(steps)


def faces(inside: Mask, box: Box, geometry: Geometry) -> Surface:
    """The faces between voxels inside and outside, two triangles each.

    Parameters
    ----------
    inside
        [i, j, k] of the voxels in a box.
    box
        Place of the box on the grid.
    geometry
        The grid.
    """
    padded = np.pad(inside, 1)
    quads = np.concatenate([_quads(padded, axis) for axis in range(3)])
    shape = np.array(padded.shape)
    used, places = np.unique(np.ravel_multi_index(tuple(quads.reshape(-1, 3).T), tuple(shape)), return_inverse=True)
    corners = np.stack(np.unravel_index(used, tuple(shape)), -1)
    start = np.array([part.start for part in box])
    # The corner before voxel 0 is half a voxel before its centre, and padding moved voxels by one.
    world = geometry.voxel_to_world(corners + start - 1.5)
    four = places.reshape(-1, 4)
    triangles = np.concatenate([four[:, [0, 1, 2]], four[:, [0, 2, 3]]]).astype(np.int32)
    # Of a grid whose axes are left-handed, faces are seen from inside.
    turned = triangles if np.linalg.det(geometry.affine[:3, :3]) > 0 else triangles[:, ::-1]
    return Surface(world, turned)


def _quads(padded: Mask, axis: int) -> npt.NDArray[np.int64]:
    """(N, 4, 3) corners of the faces across an axis, counter-clockwise from outside on right-handed axes."""
    along = np.moveaxis(padded, axis, 0)
    change = along[1:].astype(np.int8) - along[:-1].astype(np.int8)
    found = np.argwhere(change)
    leaving = change[tuple(found.T)] < 0
    corner = np.empty_like(found)
    others = [other for other in range(3) if other != axis]
    corner[:, axis] = found[:, 0] + 1
    corner[:, others[0]], corner[:, others[1]] = found[:, 1], found[:, 2]
    first, second = np.zeros((2, 3), np.int64)
    # In cyclic order their cross product points along the axis.
    first[(axis + 1) % 3] = second[(axis + 2) % 3] = 1
    ring = np.array([0 * first, first, first + second, second])
    quads = corner[:, None] + ring
    return np.asarray(np.where(leaving[:, None, None], quads, quads[:, ::-1]))


def _neighbours(triangles: Triangles, count: int) -> sparse.csr_array:
    """Matrix that takes each corner to the mean of those it shares an edge of a triangle with."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    ones = np.ones(len(both))
    matrix = sparse.csr_array((ones, (both[:, 0], both[:, 1])), shape=(count, count))
    matrix.data[:] = 1
    return sparse.csr_array(sparse.diags_array(1 / matrix.sum(axis=1)) @ matrix)
