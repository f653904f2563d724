"""Where voxels are: `Geometry`, and pure functions on affines. No pixels, no files.

Axes: voxel arrays are indexed ``[i, j, k]``; an affine maps ``(i, j, k)`` to millimetres in RAS+ (x to the patient's
Right, y to Anterior, z to Superior), the convention of NIfTI, nibabel and MONAI. DICOM, ITK and NRRD are LPS;
`ras_from_lps` is the only place where the signs flip. An orientation is three letters, nibabel's axcodes: the direction
in which each index grows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from volseg.errors import GeometryError

Floats = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
Scalar = TypeVar("Scalar", bound=np.generic)

#: Two grids are the same where no voxel centre of one is further than this from that of the other, in mm.
SAME_GRID_MM = 1e-3
#: No scan reaches as far, in mm: an affine with such numbers is damaged, and computing with it overflows.
FARTHEST_MM = 1e9
#: Columns of an affine whose cosine is above this are not perpendicular: the grid is sheared.
SHEAR_COSINE = 1e-4

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
#: The 48 orientations: six orders of the axes, two directions along each.
ORIENTATIONS: tuple[str, ...] = tuple(
    "".join(letters) for order in itertools.permutations(_LETTERS) for letters in itertools.product(*order)
)


def ras_from_lps(affine: npt.ArrayLike) -> Floats:
    """Affine to RAS+ from one to LPS+, or the reverse: the flip is its own inverse.

    Parameters
    ----------
    affine
        (4, 4) affine to millimetres, or (3,) or (N, 3) points in millimetres.
    """
    given = np.asarray(affine, dtype=np.float64)
    if given.shape == (4, 4):
        return np.asarray(given * np.array([[-1.0], [-1.0], [1.0], [1.0]]) + 0.0)  # no -0.0
    return np.asarray(given * np.array([-1.0, -1.0, 1.0]))


def spacing_from_affine(affine: npt.ArrayLike) -> tuple[float, float, float]:
    """Distance in mm between neighbouring voxel centres along i, j, k."""
    i, j, k = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(i), float(j), float(k)


def orientation_from_affine(affine: npt.ArrayLike) -> str:
    """Axcodes of an affine: the anatomical direction nearest to that in which each index grows.

    As nibabel's ``aff2axcodes``: the affine's rotation is taken out by polar decomposition, then the axis that lies
    closest to a direction chooses first.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    u, _, vt = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    rotation = u @ vt
    letters = ["", "", ""]
    for axis in np.argsort(-np.max(np.abs(rotation), axis=0), kind="stable"):
        world = int(np.argmax(np.abs(rotation[:, axis])))
        letters[axis] = _LETTERS[world][int(rotation[world, axis] > 0)]
        rotation[world, :] = 0
    return "".join(letters)


def check_orientation(orientation: str) -> str:
    """`orientation` itself if it is one of the 48, else ValueError."""
    if orientation not in ORIENTATIONS:
        raise ValueError(f"orientation {orientation!r} is not three axcodes such as 'RAS', 'LPS' or 'SAR'")
    return orientation


@dataclass(frozen=True)
class AxisMap:
    """How to turn an array so that its axes grow in other directions: permute, then flip.

    Attributes
    ----------
    order
        Source axis of each axis of the result: ``order[a]`` becomes axis ``a``.
    flipped
        Flag of each axis of the result: whether axis ``a`` runs against its source axis.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def between(cls, source: str, target: str) -> Self:
        """Map from axcodes `source` to axcodes `target`."""
        world = [next(w for w, pair in enumerate(_LETTERS) if letter in pair) for letter in check_orientation(source)]
        order, flipped = [], []
        for letter in check_orientation(target):
            axis = world.index(next(w for w, pair in enumerate(_LETTERS) if letter in pair))
            order.append(axis)
            flipped.append(source[axis] != letter)
        return cls((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))

    @classmethod
    def reversed_axes(cls) -> Self:
        """Map that stores k, j, i: the order of SimpleITK's arrays, nothing flipped."""
        return cls((2, 1, 0), (False, False, False))

    @property
    def changes_nothing(self) -> bool:
        """Whether every axis stays as it is."""
        return self.order == (0, 1, 2) and not any(self.flipped)

    def inverse(self) -> AxisMap:
        """Map back: ``m.inverse().apply(m.apply(a))`` is ``a``."""
        order = [self.order.index(axis) for axis in range(3)]
        flipped = [self.flipped[axis] for axis in order]
        return AxisMap((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))

    def apply(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """View of `array` (..., i, j, k) with the last three axes permuted and flipped."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        i, j, k = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return turned[..., i, j, k]

    def matrix(self, shape: Shape) -> Floats:
        """(4, 4) map from voxel indices of the result to those of the source of `shape`."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for axis, (source, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            matrix[source, axis] = -1 if flip else 1
            matrix[source, 3] = shape[source] - 1 if flip else 0
        return matrix


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid of voxels in space.

    Parameters
    ----------
    shape
        Number of voxels along i, j, k.
    affine
        (4, 4) matrix from voxel index (i, j, k, 1) to RAS+ millimetres. Left-handed, oblique and sheared affines are
        allowed.

    Raises
    ------
    GeometryError
        Code ``bad-affine`` where the affine is not 4 x 4, not finite, beyond `FARTHEST_MM` or can't be inverted,
        ``not-3d`` where an axis is empty.
    """

    shape: Shape
    affine: Floats

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"shape {shape} is not three positive sizes", code="not-3d")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GeometryError(f"an affine of shape {affine.shape} is not 4 x 4", code="bad-affine")
        if not (np.abs(affine) < FARTHEST_MM).all():
            raise GeometryError(
                "the affine holds NaN or infinite numbers, or lengths beyond 1000 km", code="bad-affine"
            )
        if not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise GeometryError(f"the affine's last row is {affine[3].tolist()}, not 0 0 0 1", code="bad-affine")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / np.where(lengths > 0, lengths, 1))) < 1e-6:
            raise GeometryError(
                f"the affine has spacing {' x '.join(f'{size:g}' for size in lengths)} mm and spans no volume",
                code="bad-affine",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k."""
        return spacing_from_affine(self.affine)

    @property
    def orientation(self) -> str:
        """Axcodes, such as ``"LPS"``."""
        return orientation_from_affine(self.affine)

    @property
    def directions(self) -> Floats:
        """(3, 3): unit vectors along i, j, k in RAS+, as columns."""
        return np.asarray(self.affine[:3, :3] / np.array(self.spacing_mm))

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Field of view along i, j, k, from voxel edge to voxel edge."""
        i, j, k = (size * spacing for size, spacing in zip(self.shape, self.spacing_mm, strict=True))
        return i, j, k

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def sheared(self) -> bool:
        """Whether the axes are not perpendicular (`SHEAR_COSINE`)."""
        cosines = self.directions.T @ self.directions - np.eye(3)
        return bool(np.abs(cosines).max() > SHEAR_COSINE)

    def voxel_to_world(self, points: npt.ArrayLike) -> Floats:
        """(..., 3) voxel indices to RAS+ millimetres."""
        return np.asarray(points, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def world_to_voxel(self, points: npt.ArrayLike) -> Floats:
        """(..., 3) RAS+ millimetres to voxel indices, not rounded."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        return (np.asarray(points, dtype=np.float64) - self.affine[:3, 3]) @ inverse.T

    def difference(self, other: Geometry, tolerance_mm: float = SAME_GRID_MM) -> str | None:
        """Say in what the grids differ, or None where they are the same.

        The largest distance between corresponding voxel centres is at a corner, since the difference of two affines
        is affine: the eight corners decide.
        """
        if self.shape != other.shape:
            return f"shape {self.shape} against {other.shape}"
        corners = np.array(list(itertools.product(*((0, size - 1) for size in self.shape))))
        apart = np.linalg.norm(self.voxel_to_world(corners) - other.voxel_to_world(corners), axis=1).max()
        return None if apart <= tolerance_mm else f"voxel centres up to {apart:.4g} mm apart"

    def same_grid(self, other: Geometry, tolerance_mm: float = SAME_GRID_MM) -> bool:
        """Whether shapes are equal and no voxel centre is further than `tolerance_mm` from its counterpart."""
        return self.difference(other, tolerance_mm) is None

    def axes_onto(self, other: Geometry) -> AxisMap | None:
        """Map that stores this grid's voxels in the order in which `other` stores its own, or None.

        None where an axis of one runs along none of the other's: which voxel is which is then no question of order.
        The places themselves aren't compared.
        """
        steps = np.linalg.inv(self.affine[:3, :3]) @ other.affine[:3, :3]
        whole = np.rint(steps)
        if not np.array_equal(np.abs(whole).sum(axis=0), [1, 1, 1]) or abs(np.linalg.det(whole)) != 1:
            return None
        i, j, k = (int(axis) for axis in np.abs(whole).argmax(axis=0))
        return AxisMap((i, j, k), (bool(whole[i, 0] < 0), bool(whole[j, 1] < 0), bool(whole[k, 2] < 0)))

    def turned(self, axes: AxisMap) -> Geometry:
        """Geometry of the array that ``axes.apply`` gives: same voxels in the same places, other indices."""
        i, j, k = (self.shape[axis] for axis in axes.order)
        return Geometry((i, j, k), self.affine @ axes.matrix(self.shape))

    def cropped(self, start: Shape, shape: Shape) -> Geometry:
        """Geometry of the block of `shape` voxels from index `start` on (negative starts pad)."""
        affine = self.affine.copy()
        affine[:3, 3] = self.voxel_to_world(start)
        return Geometry(shape, affine)

    def resized(self, shape: Shape) -> Geometry:
        """Geometry of `shape` voxels over the same box: its outer voxel edges stay where they are."""
        ratio = np.array(self.shape) / np.array(shape)
        affine = self.affine.copy()
        affine[:3, :3] *= ratio
        affine[:3, 3] = self.voxel_to_world((ratio - 1) / 2)
        return Geometry(shape, affine)
