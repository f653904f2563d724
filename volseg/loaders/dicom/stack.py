"""From the planes of a DICOM series to one grid, or the reason why there is none. Pure geometry: no files, no pydicom.

Positions and directions here are DICOM's: LPS+ millimetres.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from volseg.errors import GeometryError
from volseg.geometry import Floats, Geometry, ras_from_lps

#: A slice this far off the even grid is rounding, in mm.
ROUNDING_MM = 0.01
#: Up to this, in mm, and up to `EVENED_SHARE` of the spacing, slices are evened out with a note; beyond, refused.
EVENED_MM = 0.1
EVENED_SHARE = 0.05
#: Slices closer than this are at one position, in mm.
SAME_POSITION_MM = 1e-3
#: Slices whose direction cosines differ by more face different ways.
SAME_DIRECTION = 1e-4
#: Pixel spacings that differ by more than this share are different.
SAME_SPACING_SHARE = 1e-4
#: Row and column directions must be unit vectors at right angles to within this.
ORTHONORMAL = 1e-3
#: A stack that leans by more than this from its slices' normal, and by more than `EVENED_MM` in all, is tilted.
TILT_DEGREES = 0.1


@dataclass(frozen=True)
class Plane:
    """One slice.

    Attributes
    ----------
    name
        Name in a message.
    position
        Centre of its first pixel.
    row, column
        Directions in which the column index and the row index grow: the two halves of ImageOrientationPatient.
    spacing_mm
        Spacing along `row` and along `column` (PixelSpacing reversed).
    size
        Columns and rows.
    frame
        Frame of reference UID; empty where it isn't said.
    tags
        Values that may tell images at one position apart, by attribute.
    """

    name: str
    position: tuple[float, ...]
    row: tuple[float, ...]
    column: tuple[float, ...]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    frame: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """Planes that make a grid.

    Attributes
    ----------
    order
        Indices into the planes given.
    geometry
        Grid of the array [column, row, slice], slices ascending along row x column.
    notes
        Notes on what was evened out.
    tilt_degrees
        Angle by which the stack leans from its slices' normal, 0 where it doesn't: the grid is then sheared.
    """

    order: tuple[int, ...]
    geometry: Geometry
    notes: tuple[str, ...]
    tilt_degrees: float = 0.0


def stack_planes(planes: Sequence[Plane]) -> Stack:
    """Sort planes along their normal and find the grid that they form.

    Parameters
    ----------
    planes
        Two or more, in any order.

    Raises
    ------
    GeometryError
        Codes ``not-3d``, ``mixed-frame``, ``mixed-orientation``, ``mixed-size``, ``bad-affine``, ``duplicate-slice``,
        ``missing-slice`` and ``varying-spacing``.
    """
    if len(planes) < 2:
        raise GeometryError("a single slice; give the folder that holds the whole series", code="not-3d")
    _check_alike(planes)
    row, column = unit(planes[0].row), unit(planes[0].column)
    normal = unit(np.cross(row, column))
    positions = np.array([plane.position for plane in planes])
    order = np.argsort(positions @ normal, kind="stable")
    sorted_planes = [planes[index] for index in order]
    positions = positions[order]
    _check_gaps(sorted_planes, np.diff(positions @ normal))
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    notes = _check_even(sorted_planes, positions, step)
    tilt_degrees = _tilt(step, normal, len(planes))
    affine = np.eye(4)
    affine[:3, 0] = row * planes[0].spacing_mm[0]
    affine[:3, 1] = column * planes[0].spacing_mm[1]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    geometry = Geometry((*planes[0].size, len(planes)), ras_from_lps(affine))
    if geometry.sheared and not tilt_degrees:
        notes.append("the axes are not exactly perpendicular; they are kept as the files give them")
    return Stack(tuple(int(index) for index in order), geometry, tuple(notes), tilt_degrees)


def unit(vector: Sequence[float] | Floats) -> Floats:
    """`vector` at length 1."""
    array = np.asarray(vector, dtype=np.float64)
    return np.asarray(array / np.linalg.norm(array))


def same_direction(one: Plane, two: Plane) -> bool:
    """Whether two planes face the same way, to within `SAME_DIRECTION`."""
    ours, theirs = one.row + one.column, two.row + two.column
    return ours == theirs or all(abs(a - b) <= SAME_DIRECTION for a, b in zip(ours, theirs, strict=True))


def same_spacing(one: Plane, two: Plane) -> bool:
    """Whether two planes have one pixel spacing, to within `SAME_SPACING_SHARE`."""
    ours, theirs = one.spacing_mm, two.spacing_mm
    return ours == theirs or all(abs(a / b - 1) <= SAME_SPACING_SHARE for a, b in zip(ours, theirs, strict=True))


def _check_alike(planes: Sequence[Plane]) -> None:
    first = planes[0]
    row, column = np.array(first.row), np.array(first.column)
    worst = max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column))
    if not worst <= ORTHONORMAL:
        raise GeometryError(
            f"row and column directions {first.row} and {first.column} in {first.name} are not unit vectors at right"
            " angles: the slices' orientation isn't known",
            code="bad-affine",
        )
    for plane in planes[1:]:
        if plane.frame != first.frame:
            raise GeometryError(
                f"{first.name} and {plane.name} are in different frames of reference: their positions can't be"
                " compared; separate the images",
                code="mixed-frame",
            )
        if not same_direction(plane, first):
            raise GeometryError(
                f"{first.name} and {plane.name} face different ways: orientation {_listed(first.row + first.column)}"
                f" against {_listed(plane.row + plane.column)}; separate the images",
                code="mixed-orientation",
            )
        if plane.size != first.size or not same_spacing(plane, first):
            raise GeometryError(
                f"{first.name} has {_pixels(first)} and {plane.name} has {_pixels(plane)}; separate the images",
                code="mixed-size",
            )


def _pixels(plane: Plane) -> str:
    return f"{plane.size[0]}x{plane.size[1]} pixels of {plane.spacing_mm[0]:g}x{plane.spacing_mm[1]:g} mm"


def _listed(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:.5g}" for number in numbers) + "]"


def _check_gaps(planes: Sequence[Plane], distances: Floats) -> None:
    """Refuse doubled and absent slices; `distances` are those between neighbours along the normal."""
    for index in np.flatnonzero(distances <= SAME_POSITION_MM).tolist():
        first, second = planes[index], planes[index + 1]
        names = dict.fromkeys((*first.tags, *second.tags))
        differ = [name for name in names if first.tags.get(name) != second.tags.get(name)]
        raise GeometryError(
            f"{first.name} and {second.name} are two images at one position"
            + (f", differing in {', '.join(differ)}" if differ else "")
            + "; separate the time points, echoes or reconstructions",
            code="duplicate-slice",
        )
    # The lower median: of two distances, the smaller is the usual one and the larger a gap.
    usual = float(np.sort(distances)[(len(distances) - 1) // 2])
    times = np.round(distances / usual)
    if times.max() < 2 or np.abs(distances - times * usual).max() > _allowed(usual):
        return
    gaps = [
        f"{int(times[index]) - 1} between {planes[index].name} and {planes[index + 1].name}"
        for index in np.flatnonzero(times > 1).tolist()
    ]
    shown = ", ".join(gaps[:3]) + (f" and {len(gaps) - 3} more places" if len(gaps) > 3 else "")
    raise GeometryError(
        f"slices every {usual:.4g} mm with {int((times - 1).sum())} absent"
        + (_blocks(planes, distances) or f": {shown}; fetch the whole series again"),
        code="missing-slice",
    )


def _allowed(spacing_mm: float) -> float:
    """How far off the even grid a slice may lie, in mm."""
    return max(ROUNDING_MM, min(EVENED_MM, EVENED_SHARE * spacing_mm))


def _check_even(planes: Sequence[Plane], positions: Floats, step: Floats) -> list[str]:
    """Refuse uneven slices; the note to give where they were evened out."""
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(planes))[:, None] * step), axis=1)
    worst = float(off.max())
    spacing = float(np.linalg.norm(step))
    # Positions are decimal numbers in the files: 0.1 mm off must not become more by a rounding error.
    if worst > _allowed(spacing) + 1e-9 and not (worst <= EVENED_MM + 1e-9 and _rounding_explains(positions, step)):
        steps = np.diff(positions, axis=0)
        usual = np.median(steps, axis=0)
        odd = int(np.argmax(np.linalg.norm(steps - usual, axis=1)))
        raise GeometryError(
            f"slices are not evenly spaced: {np.linalg.norm(steps[odd]):.4g} mm from {planes[odd].name} to"
            f" {planes[odd + 1].name}, usually {np.linalg.norm(usual):.4g} mm, and up to {worst:.3g} mm off an even"
            f" grid ({_allowed(spacing):.3g} mm is evened out)"
            + (_blocks(planes, np.linalg.norm(steps, axis=1)) or "; resample the series to even slices"),
            code="varying-spacing",
        )
    if worst > ROUNDING_MM + 1e-9:
        return [f"slice positions were evened out: up to {worst:.3f} mm off a grid of {spacing:.4g} mm"]
    return []


def _rounding_explains(positions: Floats, step: Floats) -> bool:
    """Whether an even grid, its positions rounded to one decimal, gives these: as old converters wrote them.

    Each position then lies within half a unit of the grid. A spacing fits two slices where it differs from theirs by no
    more than a unit over the slices between; one that fits every two fits all (Helly's theorem on a line).
    """
    if np.abs(positions * 10 - np.rint(positions * 10)).max() > 1e-6:
        return False
    direction = step / np.linalg.norm(step)
    along = positions @ direction
    first, second = np.triu_indices(len(along), 1)
    between, slices = along[second] - along[first], second - first
    unit_mm = 0.1 * float(np.abs(direction).sum())
    return bool(((between - unit_mm) / slices).max() <= ((between + unit_mm) / slices).min() + 1e-9)


def _blocks(planes: Sequence[Plane], distances: Floats) -> str:
    """What to say of slices in blocks of an even spacing each, as a head's base and vertex have; else nothing."""
    changes = np.flatnonzero(np.abs(np.diff(distances)) > _allowed(float(distances.min()))) + 1
    ends = [0, *changes.tolist(), len(distances)]
    runs = [(first, last) for first, last in itertools.pairwise(ends) if last - first > 1]
    spacings = [distances[first] for first, _ in runs]
    # One step between two blocks belongs to neither; two blocks of one spacing are a stack with a gap.
    if (
        len(runs) < 2
        or np.abs(np.diff(spacings)).min() <= _allowed(min(spacings))
        or sum(last - first for first, last in runs) + len(runs) - 1 < len(distances)
    ):
        return ""
    blocks = [
        f"{last - first + 1} slices every {distances[first]:.4g} mm from {planes[first].name} to {planes[last].name}"
        for first, last in runs
    ]
    return f": {len(runs)} blocks, {', '.join(blocks)}; give the files of one block, in a folder of their own"


def _tilt(step: Floats, normal: Floats, slices: int) -> float:
    """Angle in degrees between the stack and its slices' normal; 0 where that is rounding."""
    along = float(step @ normal)
    sideways = float(np.linalg.norm(step - along * normal))
    degrees = float(np.degrees(np.arctan2(sideways, along)))
    return degrees if degrees > TILT_DEGREES and sideways * (slices - 1) > EVENED_MM else 0.0
