"""DICOM RTSTRUCT as labels on the grid of an image: closed contours, filled slice by slice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from volseg.errors import GeometryError, InputError
from volseg.geometry import FARTHEST_MM, Floats, Geometry, ras_from_lps
from volseg.labels.canvas import Canvas, any_colour
from volseg.labels.contours import DECIMALS, inside
from volseg.labels.dicom_object import check_frame, code_of, decimals, numbers, read_object, reading, required
from volseg.loaders.dicom.header import element_text
from volseg.loaders.dicom.stack import ROUNDING_MM
from volseg.text import count
from volseg.volume import Label, LabelVolume, Volume

#: A contour may lie this share of the slice spacing off its slice: planning systems round positions.
CONTOUR_SHARE = 0.1
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True)
class _Structure:
    """One region of interest: its label, its closed contours (N, 3) in LPS mm, its frame, and what is left out.

    `images` are the SOP instance UIDs that each contour says it was drawn on.
    """

    label: Label
    contours: tuple[Floats, ...]
    images: tuple[frozenset[str], ...]
    frame: str
    others: Counter[str]


def read_rtstruct(path: Path, image: Volume, names: Sequence[str] | None = None) -> LabelVolume:
    """Read an RTSTRUCT onto the grid of `image`; arguments and result as those of `volseg.labels.read`.

    Raises
    ------
    InputError, GeometryError
        As there. Code ``grid-mismatch`` also where a contour doesn't lie in a slice of the image, to `CONTOUR_SHARE`.
    """
    with reading(path):
        structures = _structures(read_object(path), path)
        kept = [structure for structure in structures if structure.contours or not structure.others]
        canvas = Canvas([structure.label for structure in kept], image.geometry.shape, names, path, "region")
        for structure in structures:
            for kind, number in structure.others.items():
                canvas.note(f"{structure.label.name!r}: {count(number, 'contour')} of type {kind} left out")
            if not (structure.contours or structure.others) and canvas.takes(structure.label.value):
                canvas.note(f"{structure.label.name!r} has no contours: this label is empty")
        taken = [structure for structure in kept if structure.contours and canvas.takes(structure.label.value)]
        axis = _slice_axis((contour for structure in taken for contour in structure.contours), image.geometry)
        for structure in taken:
            if _drawn_on(structure, axis, image):
                canvas.note(
                    "the frame of reference is another than the image's (older rt-utils write a random one);"
                    " each contour names the image's slice that it lies in, and is taken"
                )
            else:
                check_frame(structure.frame, image, path)
            _paint(canvas, structure, axis, image.geometry, path)
        return canvas.finish(image)


def _structures(dataset: Dataset, path: Path) -> list[_Structure]:
    """Regions by ROI number; that is also the order of their values, from 1."""
    contours = {
        int(required(item, "ReferencedROINumber", path)): item for item in required(dataset, "ROIContourSequence", path)
    }
    codes = {
        int(required(item, "ReferencedROINumber", path)): code_of(item, "RTROIIdentificationCodeSequence")
        for item in dataset.get("RTROIObservationsSequence") or ()
    }
    regions = {
        int(required(item, "ROINumber", path)): item for item in required(dataset, "StructureSetROISequence", path)
    }
    if len(regions) < len(dataset.StructureSetROISequence) or len(contours) < len(dataset.ROIContourSequence):
        raise InputError("two regions have one ROI number", code="unreadable", path=path)
    if strange := sorted(contours.keys() - regions.keys()):
        raise InputError(f"contours of ROI numbers {strange}, which no region has", code="unreadable", path=path)
    structures = []
    for value, number in enumerate(sorted(regions), start=1):
        region, drawn = regions[number], contours.get(number, Dataset())
        name = element_text(region, "ROIName") or f"region {number}"
        colour = numbers(drawn.get("ROIDisplayColor"), 3)
        closed, images, others = _contours(drawn, name, path)
        label = Label(
            value=value,
            name=name,
            colour=any_colour(value) if colour is None else _rgb(colour),
            code=codes.get(number),
        )
        structures.append(
            _Structure(label, closed, images, element_text(region, "ReferencedFrameOfReferenceUID"), others)
        )
    return structures


def _rgb(colour: Floats) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in np.clip(colour, 0, 255))
    return red, green, blue


def _drawn_on(structure: _Structure, axis: int, image: Volume) -> bool:
    """Whether a region in another frame of reference than the image names the image's own slices, and lies in them.

    A contour that names an instance of the very series was drawn on it, whatever the frame of reference says. One that
    names another slice than it lies in is none of this.
    """
    dicom = image.source.dicom
    if dicom is None or axis != 2 or structure.frame in ("", dicom.frame_of_reference_uid):
        return False
    places: dict[str, set[int]] = defaultdict(set)
    for k, instance in enumerate(dicom.instances):
        places[instance.sop_instance_uid].add(k)
    for contour, named in zip(structure.contours, structure.images, strict=True):
        k = round(float(np.median(image.geometry.world_to_voxel(ras_from_lps(contour))[:, axis])))
        if not named or any(k not in places.get(uid, ()) for uid in named):
            return False
    return True


def _contours(
    drawn: Dataset, name: str, path: Path
) -> tuple[tuple[Floats, ...], tuple[frozenset[str], ...], Counter[str]]:
    """Closed contours, each once, the images that each names, and the number of the other contours by type."""
    closed: dict[bytes, Floats] = {}
    images: dict[bytes, frozenset[str]] = {}
    others: Counter[str] = Counter()
    for item in drawn.get("ContourSequence") or ():
        kind = element_text(item, "ContourGeometricType")
        if kind not in _CLOSED:
            others[kind or "that isn't said"] += 1
            continue
        points = decimals(item, "ContourData", path)
        said = item.get("NumberOfContourPoints")
        if points.size % 3 or points.size == 0 or (said is not None and int(said) * 3 != points.size):
            raise InputError(
                f"a contour of {name!r} is damaged: {said} points are said, {points.size} numbers are there",
                code="unreadable",
                path=path,
            )
        if not np.abs(points).max() < FARTHEST_MM:
            raise InputError(f"a contour of {name!r} is damaged: it lies nowhere", code="unreadable", path=path)
        # The same contour again is no hole.
        closed[points.tobytes()] = points.reshape(-1, 3)
        named = (element_text(one, "ReferencedSOPInstanceUID") for one in item.get("ContourImageSequence") or ())
        images[points.tobytes()] = frozenset(named)
    return tuple(closed.values()), tuple(images.values()), others


def _plane_distances_mm(geometry: Geometry) -> Floats:
    """Distance between neighbouring planes of voxels with one i, one j, and one k."""
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1))


def _slice_axis(contours: Iterable[Floats], geometry: Geometry) -> int:
    """Axis along which no contour extends, or the least: k of a DICOM series, any of a NIfTI file."""
    extents = [np.zeros(3)]
    extents += [np.ptp(geometry.world_to_voxel(ras_from_lps(contour)), axis=0) for contour in contours]
    worst_mm = np.max(extents, axis=0) * _plane_distances_mm(geometry)
    return 2 - int(np.argmin(np.round(worst_mm[::-1], DECIMALS)))


def _paint(canvas: Canvas, structure: _Structure, axis: int, geometry: Geometry, path: Path) -> None:
    slices = _by_slice(structure, axis, geometry, path)
    drawn = sorted(slices)
    if gaps := len(set(range(drawn[0], drawn[-1])) - set(drawn)):
        canvas.note(f"{structure.label.name!r} has no contour on {count(gaps, 'slice')} between its first and its last")
    shape = np.array([geometry.shape[other] for other in range(3) if other != axis])
    for k, polygons in slices.items():
        corners = np.concatenate(polygons)
        lowest, highest = corners.min(axis=0), corners.max(axis=0)
        start = np.clip(np.ceil(lowest), 0, shape).astype(int)
        stop = np.clip(np.floor(highest) + 1, start, shape).astype(int)
        beyond = not 0 <= k < geometry.shape[axis]
        if beyond or (lowest <= -1).any() or (highest >= shape).any():
            canvas.outside()
        if beyond or (stop <= start).any():
            continue
        where: list[int | slice] = [slice(low, high) for low, high in zip(start, stop, strict=True)]
        where.insert(axis, k)
        mask = inside([polygon - start for polygon in polygons], (stop - start)[0], (stop - start)[1])
        canvas.paint(structure.label.value, tuple(where), mask)


def _by_slice(structure: _Structure, axis: int, geometry: Geometry, path: Path) -> dict[int, list[Floats]]:
    """Contours (N, 2) in voxel coordinates, by the slice that they lie in; slices beyond the image too."""
    slices: dict[int, list[Floats]] = defaultdict(list)
    distance_mm = float(_plane_distances_mm(geometry)[axis])
    allowed_mm = max(ROUNDING_MM, CONTOUR_SHARE * distance_mm)
    for contour in structure.contours:
        points = geometry.world_to_voxel(ras_from_lps(contour))
        k = round(float(np.median(points[:, axis])))
        off_mm = float(np.abs(points[:, axis] - k).max()) * distance_mm
        if off_mm > allowed_mm + 1e-9:
            raise GeometryError(
                f"a contour of {structure.label.name!r} lies up to {off_mm:.3g} mm off the nearest slice of the image"
                f" ({allowed_mm:.3g} mm are allowed); give the image that it was drawn on",
                code="grid-mismatch",
                path=path,
            )
        slices[k].append(np.delete(points, axis, axis=1))
    return slices
