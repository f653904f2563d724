"""One DICOM series to the volumes that it really holds. Pure geometry and tags: no files, no pydicom.

A scanner puts echoes, time points, b-values, magnitude and phase, or several orientations under one series UID. Images
are told apart by what the files say, and by the order of their numbers only where that can mean one thing. Where what
they say doesn't give whole volumes, the series stays together, and is refused with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from volseg.errors import GeometryError
from volseg.geometry import Floats, orientation_from_affine, ras_from_lps
from volseg.loaders.dicom.stack import SAME_POSITION_MM, Plane, Stack, same_direction, same_spacing, stack_planes, unit

#: Planes that face directions less than this apart may belong to one stack, in degrees.
FACING_DEGREES = 45.0
#: An image up to this many slices beyond a stack's end may be one of its slices.
BEYOND_SLICES = 1.5

#: Attributes that tell whole volumes apart, the most telling first, and what their values are called in a name.
_TELLING: Mapping[str, str] = {
    "StackID": "stack",
    "DiffusionBValue": "b",
    "EchoTime": "te",
    "EchoNumbers": "echo",
    "InversionTime": "ti",
    "FlipAngle": "flip",
    "KVP": "kv",
    "ImageType": "",
    "ComplexImageComponent": "",
    "TemporalPositionIdentifier": "t",
    "TriggerTime": "trigger",
    "NominalPercentageOfCardiacPhase": "phase",
    "AcquisitionNumber": "acq",
    "ConvolutionKernel": "",
    "ASLContext": "",
    "VasCollapseFlag": "flag",
    "DiffusionGradientOrientation": "direction",
}
#: Those whose values never mix in one volume: other values are another image of the same slice.
_CONTRAST = (
    "StackID",
    "DiffusionBValue",
    "EchoTime",
    "InversionTime",
    "KVP",
    "ConvolutionKernel",
    "ComplexImageComponent",
    "ASLContext",
)
#: Nor do the values of these where volumes are told apart by times or numbers.
_UNIFORM = (*_CONTRAST, "VasCollapseFlag", "DiffusionGradientOrientation")
#: Those that differ from slice to slice inside one volume: only their order at each position counts.
_TIMES = ("TriggerTime", "RTIATimer", "AcquisitionDateTime", "AcquisitionTime")
#: How volumes are told apart that differ in nothing but the numbers of their images.
_NUMBERS = "the order of InstanceNumber alone"
_VIEWS = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


@dataclass(frozen=True)
class Part:
    """One volume of a series.

    Attributes
    ----------
    indices
        Indices of its planes, in the order of its slices where it is a stack.
    names
        Names that tell it from the other parts, such as ``te4.6``; empty where the series is one volume.
    attributes
        The attributes by which the series was split.
    stack, refused
        The grid, or the reason why there is none.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    stack: Stack | None = None
    refused: GeometryError | None = None


def split_planes(planes: Sequence[Plane]) -> list[Part]:
    """Volumes that the planes of a series make, usable or not; every plane is in one of them."""
    groups = _joined(planes, _alike(planes))
    parts = []
    for group in groups:
        names = _shape_names(planes, group, groups) if len(groups) > 1 else ()
        for part in _resolved(planes, group):
            parts.append(
                Part(
                    part.indices,
                    (*names, *part.names),
                    (*(("orientation, size or frame of reference",) if names else ()), *part.attributes),
                    part.stack,
                    part.refused,
                )
            )
    return parts


def _alike(planes: Sequence[Plane]) -> list[list[int]]:
    """Indices of planes of one orientation, size, pixel spacing and frame of reference."""
    groups: list[list[int]] = []
    firsts: list[Plane] = []
    for index, plane in enumerate(planes):
        for group, first in zip(groups, firsts, strict=True):
            if (
                plane.size == first.size
                and plane.frame == first.frame
                and same_direction(plane, first)
                and same_spacing(plane, first)
            ):
                group.append(index)
                break
        else:
            groups.append([index])
            firsts.append(plane)
    return groups


def _joined(planes: Sequence[Plane], groups: list[list[int]]) -> list[list[int]]:
    """Put groups together that look like one damaged stack: better refused than taken for volumes of their own."""
    volumes = [group for group in groups if len(group) > 1]
    if len(groups) == 1 or not volumes:
        return [[index for group in groups for index in group]]
    joined: list[list[int]] = []
    for group in sorted(groups, key=len, reverse=True):
        home = next((other for other in joined if _belongs(planes, group, other)), None)
        if home is None:
            joined.append(list(group))
        else:
            home += group
    return joined


def _belongs(planes: Sequence[Plane], group: Sequence[int], other: Sequence[int]) -> bool:
    """Whether the planes of `group` are the ones that the larger group `other` lacks, or go on where it ends."""
    if len(other) < 2:
        return False
    normal, facing = _normal(planes[other[0]]), _normal(planes[group[0]])
    if normal is None or facing is None or abs(normal @ facing) < np.cos(np.radians(FACING_DEGREES)):
        return False
    theirs = np.sort(np.array([planes[index].position for index in other]) @ normal)
    ours = np.array([planes[index].position for index in group]) @ normal
    refused = _stack(planes, other).refused
    if refused is not None:
        gap = refused.code in ("missing-slice", "varying-spacing")
        return gap and bool(np.any((ours > theirs[0]) & (ours < theirs[-1])))
    if len(group) > 1:
        return False
    step = (theirs[-1] - theirs[0]) / (len(theirs) - 1)
    return bool(0 < max(theirs[0] - ours[0], ours[0] - theirs[-1]) <= BEYOND_SLICES * step)


def _normal(plane: Plane) -> Floats | None:
    normal = np.cross(plane.row, plane.column)
    return unit(normal) if np.linalg.norm(normal) > 0.5 else None


def _stack(planes: Sequence[Plane], indices: Sequence[int]) -> Part:
    try:
        stack = stack_planes([planes[index] for index in indices])
    except GeometryError as error:
        return Part(tuple(indices), refused=error)
    return Part(tuple(indices[place] for place in stack.order), stack=stack)


def _resolved(planes: Sequence[Plane], group: Sequence[int]) -> list[Part]:
    """Volumes of planes that are alike."""
    whole = _stack(planes, group)
    if whole.stack is not None:
        return _by_contrast(planes, group) or [whole]
    assert whole.refused is not None
    if whole.refused.code == "duplicate-slice":
        return (
            _split(planes, group, tuple(_TELLING), strict=True)
            or _by_times(planes, group)
            or _by_numbers(planes, group)
            or _split(planes, group, tuple(_TELLING), strict=False)
            or [whole]
        )
    if whole.refused.code == "varying-spacing":
        return _split(planes, group, tuple(_TELLING), strict=True) or [whole]
    if whole.refused.code == "missing-slice":
        parts = _split(planes, group, tuple(_TELLING), strict=True)
        return parts if parts and _apart(planes, group, parts) else [whole]
    return [whole]


def _apart(planes: Sequence[Plane], group: Sequence[int], parts: Sequence[Part]) -> bool:
    """Whether volumes explain the gaps between planes: each lies on its side of them, or among the others' slices.

    Else slices are absent where one acquisition of many ends and the next begins.
    """
    normal = _normal(planes[group[0]])
    assert normal is not None  # planes without one have no gap

    def along(indices: Sequence[int]) -> Floats:
        return np.sort(np.array([planes[index].position for index in indices]) @ normal)

    distances = np.diff(along(group))
    pieces = 1 + int((distances > BEYOND_SLICES * distances.min()).sum())
    extents = [along(part.indices)[[0, -1]] for part in parts]
    interleaved = max(low for low, _ in extents) < min(high for _, high in extents)
    return interleaved or len(parts) == pieces


def _by_contrast(planes: Sequence[Plane], group: Sequence[int]) -> list[Part]:
    """Parts of a stack without doubled slices that holds images of two kinds; none where it holds one kind.

    Halves of two echoes make two volumes. Where the kinds don't make volumes, one's slices lie in the other's gaps.
    """
    for key in _CONTRAST:
        kinds = _by_value(planes, group, key)
        if len(kinds) > 1:
            if parts := _split(planes, group, (key,), strict=True):
                return parts
            name, usual = max(kinds.items(), key=lambda item: len(item[1]))
            odd = next(index for index in group if index not in usual)
            error = GeometryError(
                f"{planes[odd].name} is of another kind than the slices around it ({key} {name} and others): it lies in"
                " a gap of theirs; fetch the whole series again",
                code="missing-slice",
            )
            return [Part(tuple(group), refused=error)]
    return []


def _split(planes: Sequence[Plane], group: Sequence[int], keys: tuple[str, ...], *, strict: bool) -> list[Part]:
    """Parts by the first attribute that gives whole volumes, each split further where it must be; else none.

    Parameters
    ----------
    strict
        Whether every part must be a volume. Else it may be refused as well, if only not for doubled slices.
    """
    for place, key in enumerate(keys):
        groups = _by_value(planes, group, key)
        single = [name for name, members in groups.items() if len(members) == 1]
        # A projection or a reference image among the slices says so in its image type, and stands alone.
        if len(groups) < 2 or len(single) == len(groups) or (single and key != "ImageType"):
            continue
        rest = keys[place + 1 :]
        found: list[Part] = []
        for name, members in groups.items():
            parts = [_stack(planes, members)] if name in single else _finished(planes, members, rest, strict=strict)
            if not parts:
                break
            found += [Part(p.indices, (name, *p.names), (key, *p.attributes), p.stack, p.refused) for p in parts]
        else:
            return found
    return []


def _finished(planes: Sequence[Plane], members: list[int], rest: tuple[str, ...], *, strict: bool) -> list[Part]:
    whole = _stack(planes, members)
    if whole.stack is not None:
        return [whole]
    assert whole.refused is not None
    if whole.refused.code == "duplicate-slice":
        return (
            _split(planes, members, rest, strict=strict) or _by_times(planes, members) or _by_numbers(planes, members)
        )
    return [] if strict else [whole]


def _by_value(planes: Sequence[Plane], group: Sequence[int], key: str) -> dict[str, list[int]]:
    """Indices by the name of their value, names in ascending order of the values."""
    by_value: dict[str, list[int]] = defaultdict(list)
    for index in group:
        by_value[planes[index].tags.get(key, "")].append(index)
    ordered = sorted(by_value, key=_sortable)
    name = _namer(key, ordered)
    return {name(place, value): by_value[value] for place, value in enumerate(ordered)}


def _namer(key: str, values: Sequence[str]) -> Callable[[int, str], str]:
    if key == "DiffusionGradientOrientation":
        return lambda place, _: f"direction{place + 1}"
    if _TELLING[key]:
        return lambda _, value: f"{_TELLING[key]}{value or '-none'}"
    parts = [value.split("\\") for value in values]
    same = set.intersection(*map(set, parts))

    def different(place: int, _: str) -> str:
        return "_".join(part for part in parts[place] if part not in same) or "plain"

    return different


def _sortable(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)


def _by_times(planes: Sequence[Plane], group: Sequence[int]) -> list[Part]:
    """Time points by the order of their times at each position, where every position has equally many; else none."""
    places = _places(planes, group)
    for key in _TIMES if places else ():
        ranked = [sorted(place, key=lambda index: _sortable(planes[index].tags.get(key, ""))) for place in places]
        different = all(
            len({planes[index].tags.get(key, "") for index in place} - {""}) == len(place) for place in places
        )
        if different and (parts := _volumes(planes, list(zip(*ranked, strict=True)), "time", key)):
            return parts
    return []


def _by_numbers(planes: Sequence[Plane], group: Sequence[int]) -> list[Part]:
    """Volumes by InstanceNumber, where every position has equally many images; else none.

    Either all images of a volume have one number, as tiles of a mosaic do, or the numbers are consecutive and go
    volume by volume, or position by position, from one end of the stack to the other: no two of these can hold at
    once, and numbers that were given in another order are most unlikely to.
    """
    places = _places(planes, group)
    numbers = {index: planes[index].tags.get("InstanceNumber", "") for index in group}
    if not places or not all(number.isdigit() for number in numbers.values()):
        return []
    place_of = {index: place for place, members in enumerate(places) for index in members}
    order = sorted(group, key=lambda index: (int(numbers[index]), place_of[index]))
    first, last, several = int(numbers[order[0]]), int(numbers[order[-1]]), len(places[0])
    by_volume = [order[start : start + len(places)] for start in range(0, len(order), len(places))]
    if len(set(numbers.values())) == len(order) == last - first + 1:
        ways = [by_volume, [order[start::several] for start in range(several)]]
    else:
        ways = [by_volume] if all(len({numbers[index] for index in volume}) == 1 for volume in by_volume) else []
    along = list(range(len(places)))
    for volumes in ways:
        taken = [[place_of[index] for index in volume] for volume in volumes]
        if all(way == along for way in taken) or all(way == along[::-1] for way in taken):
            return _volumes(planes, volumes, "volume", _NUMBERS)
    return []


def _places(planes: Sequence[Plane], group: Sequence[int]) -> list[list[int]]:
    """Indices of the images at each position, ascending; none where positions have different numbers of them."""
    normal = _normal(planes[group[0]])
    if normal is None:
        return []
    along = np.array([planes[index].position for index in group]) @ normal
    places: list[list[int]] = []
    order = np.argsort(along, kind="stable")
    for before, now in zip([None, *order[:-1]], order, strict=True):
        if before is None or along[now] - along[before] > SAME_POSITION_MM:
            places.append([])
        places[-1].append(group[int(now)])
    return places if len({len(place) for place in places}) == 1 and len(places) > 1 else []


def _volumes(planes: Sequence[Plane], groups: Sequence[Sequence[int]], name: str, key: str) -> list[Part]:
    """Groups as parts called `name` and their number, if each is a volume of images of one kind; else none."""
    mixed = any(len({planes[index].tags.get(tag, "") for index in group}) > 1 for group in groups for tag in _UNIFORM)
    parts = [] if mixed else [_stack(planes, group) for group in groups]
    if not all(part.stack is not None for part in parts):
        return []
    return [Part(part.indices, (f"{name}{number}",), (key,), part.stack) for number, part in enumerate(parts, 1)]


def _shape_names(planes: Sequence[Plane], group: Sequence[int], groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """What tells a group from the others: how it faces, its pixels, its frame of reference."""
    descriptions = [_shapes(planes[other[0]]) for other in groups]
    own = _shapes(planes[group[0]])
    return tuple(
        own[place] for place in range(len(own)) if len({described[place] for described in descriptions}) > 1
    ) or (f"group{list(groups).index(group) + 1}",)


def _shapes(plane: Plane) -> tuple[str, str, str]:
    normal = _normal(plane)
    view = "unknown"
    if normal is not None:
        affine = np.eye(4)
        affine[:3, :3] = np.stack([unit(plane.row), unit(plane.column), normal], axis=1)
        view = _VIEWS[orientation_from_affine(ras_from_lps(affine))[2]]
    i_mm, j_mm = plane.spacing_mm
    return view, f"{plane.size[0]}x{plane.size[1]}", f"{i_mm:.3g}x{j_mm:.3g}mm"
