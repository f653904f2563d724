"""DICOM SEG as labels on the grid of an image: binary, fractional, and label maps (supplement 243)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.decoders.base import get_decoder

from volseg.errors import GeometryError, InputError
from volseg.geometry import Geometry, ras_from_lps
from volseg.labels.canvas import Canvas, Index, any_colour
from volseg.labels.dicom_object import check_frame, code_of, numbers, read_object, reading, required
from volseg.loaders.dicom.header import element_text, transfer_syntax
from volseg.loaders.dicom.stack import EVENED_MM, EVENED_SHARE, ROUNDING_MM
from volseg.volume import ANATOMICAL_STRUCTURE, Label, LabelVolume, Volume

#: Largest frame that is decompressed, in pixels: a header may claim more than any scanner gives.
FRAME_PIXELS = 2**26
#: CIELab's white point, D65, and the way from XYZ to linear sRGB.
_WHITE = np.array([95.047, 100.0, 108.883]) / 100
_RGB_FROM_XYZ = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])

#: Position (3), directions of rows and columns (6), and spacing between rows and between columns (2), LPS mm.
Plane = tuple[float, ...]


@dataclass(frozen=True)
class _Frame:
    """One frame: its segment (None in a label map), and its plane."""

    segment: int | None
    plane: Plane


@dataclass(frozen=True)
class _Place:
    """Where a frame lies on the image.

    Attributes
    ----------
    where
        The part of the image that it covers: two slices, and the index of the plane.
    crop
        The part of the frame that lies within the image, after turning.
    transposed, flipped
        Turns that give the frame [row, column] the axes of ``array[where]``.
    off_mm
        Distance of its pixels from the voxels.
    """

    where: Index
    crop: tuple[slice, slice]
    transposed: bool
    flipped: tuple[int, int]
    off_mm: float

    def turned(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of a frame [row, column] with the axes of the image."""
        turned = frame.T if self.transposed else frame
        return turned[:: self.flipped[0], :: self.flipped[1]]


def read_seg(path: Path, image: Volume, names: Sequence[str] | None = None) -> LabelVolume:
    """Read a SEG onto the grid of `image`; arguments, result and errors as those of `volseg.labels.read`."""
    with reading(path):
        dataset = read_object(path)
        check_frame(element_text(dataset, "FrameOfReferenceUID"), image, path)
        background = _background(dataset)
        canvas = Canvas(_labels(dataset, background, path), image.geometry.shape, names, path, "segment")
        _paint(canvas, dataset, background, image.geometry, path)
        return canvas.finish(image)


def _background(dataset: Dataset) -> set[int]:
    """Values of a label map that are no structure."""
    said = dataset.get("PixelPaddingValue")
    return {0} if said is None else {0, int(said)}


def _labels(dataset: Dataset, background: set[int], path: Path) -> list[Label]:
    labels = []
    for item in required(dataset, "SegmentSequence", path):
        number = int(required(item, "SegmentNumber", path))
        if _is_label_map(dataset) and number in background:
            continue
        code = code_of(item, "SegmentedPropertyTypeCodeSequence")
        types = item.get("SegmentedPropertyTypeCodeSequence")
        lab = numbers(item.get("RecommendedDisplayCIELabValue"), 3)
        name = element_text(item, "SegmentLabel") or (code.meaning if code else f"segment {number}")
        labels.append(
            Label(
                value=number,
                name=name,
                colour=any_colour(number) if lab is None else rgb_from_lab(lab),
                code=code,
                category=code_of(item, "SegmentedPropertyCategoryCodeSequence") or ANATOMICAL_STRUCTURE,
                modifier=code_of(types[0], "SegmentedPropertyTypeModifierCodeSequence") if types else None,
            )
        )
    values = [label.value for label in labels]
    if len(set(values)) < len(values) or min(values, default=1) < 1:
        raise InputError(f"segment numbers {values} are not positive and different", code="unreadable", path=path)
    return labels


def rgb_from_lab(lab: npt.ArrayLike) -> tuple[int, int, int]:
    """sRGB, 0 to 255, of DICOM's CIELab values: three numbers from 0 to 65535 (PS3.3 C.10.7.1.1)."""
    lightness, a, b = np.asarray(lab, dtype=np.float64) / 65535 * [100, 255, 255] - [0, 128, 128]
    root = (lightness + 16) / 116 + np.array([a / 500, 0, -b / 200])
    xyz = _WHITE * np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29))
    linear = np.clip(_RGB_FROM_XYZ @ xyz, 0, 1)
    encoded = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    red, green, blue = (int(part) for part in np.rint(255 * encoded))
    return red, green, blue


def _is_label_map(dataset: Dataset) -> bool:
    return element_text(dataset, "SegmentationType") == "LABELMAP"


def _paint(canvas: Canvas, dataset: FileDataset, background: set[int], geometry: Geometry, path: Path) -> None:
    frames = _frames(dataset, path)
    places: dict[Plane, _Place] = {}
    painted: set[tuple[int | None, str]] = set()
    size = int(dataset.Columns), int(dataset.Rows)
    lowest = _lowest(dataset, path)
    for number, pixels in _pixels(
        dataset, [frame.segment is None or canvas.takes(frame.segment) for frame in frames], path
    ):
        frame = frames[number]
        if frame.plane not in places:
            places[frame.plane] = _place(frame.plane, size, geometry, f"frame {number + 1}", path)
        place = places[frame.plane]
        if place.off_mm > ROUNDING_MM:
            canvas.note(f"frames lie up to {place.off_mm:.3f} mm off the image's voxels, and are put onto the nearest")
        # What is 0 is background from here on.
        content = place.turned(_without(pixels, background) if frame.segment is None else pixels >= lowest)
        inside = content[place.crop]
        if np.count_nonzero(content) > np.count_nonzero(inside):
            canvas.outside()
        if not inside.size:
            continue
        if (frame.segment, str(place.where)) in painted:
            raise GeometryError(
                f"frame {number + 1} is a second one of its segment at its position; separate the time points",
                code="duplicate-slice",
                path=path,
            )
        painted.add((frame.segment, str(place.where)))
        if frame.segment is None:
            canvas.paint_values(place.where, inside)
        else:
            canvas.paint(frame.segment, place.where, inside)


def _without(values: npt.NDArray[Any], background: set[int]) -> npt.NDArray[Any]:
    """Label values with 0 wherever they mean the background."""
    return np.where(np.isin(values, list(background)), 0, values) if background != {0} else values


def _lowest(dataset: Dataset, path: Path) -> int:
    """Smallest stored value that is in a segment: half of the largest that there can be."""
    if element_text(dataset, "SegmentationType") != "FRACTIONAL":
        return 1
    highest = int(required(dataset, "MaximumFractionalValue", path))
    if highest < 1:
        raise InputError(f"MaximumFractionalValue is {highest}", code="unreadable", path=path)
    return (highest + 1) // 2


def _frames(dataset: Dataset, path: Path) -> list[_Frame]:
    items = required(dataset, "PerFrameFunctionalGroupsSequence", path)
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    stated = int(dataset.get("NumberOfFrames") or 1)
    if len(items) != stated:
        raise InputError(f"{stated} frames are said, {len(items)} described", code="unreadable", path=path)
    return [_frame(item, shared[0], number, _is_label_map(dataset), path) for number, item in enumerate(items, start=1)]


def _frame(item: Dataset, shared: Dataset, number: int, label_map: bool, path: Path) -> _Frame:
    def group(sequence: str, keyword: str) -> Any:
        found = item.get(sequence) or shared.get(sequence)
        return found[0].get(keyword) if found else None

    position = numbers(group("PlanePositionSequence", "ImagePositionPatient"), 3)
    directions = numbers(group("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = numbers(group("PixelMeasuresSequence", "PixelSpacing"), 2)
    if position is None or directions is None or spacing is None or spacing.min() <= 0:
        raise GeometryError(
            f"frame {number} has no valid position, orientation or pixel spacing; only segmentations of volumes can be"
            " put onto an image",
            code="missing-geometry",
            path=path,
        )
    plane = (*position.tolist(), *directions.tolist(), *spacing.tolist())
    if label_map:
        return _Frame(None, plane)
    segment = group("SegmentIdentificationSequence", "ReferencedSegmentNumber")
    if segment is None:
        raise InputError(f"frame {number} belongs to no segment", code="unreadable", path=path)
    return _Frame(int(segment), plane)


def _place(plane: Plane, size: tuple[int, int], geometry: Geometry, name: str, path: Path) -> _Place:
    """Find the voxels that a frame's pixels are.

    Two affine maps of a rectangle differ most at a corner, and three of them decide about the fourth.

    Parameters
    ----------
    size
        Columns and rows.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: the pixels aren't voxels.
    """
    position, along_row, along_column, (between_rows, between_columns) = (
        np.array(part) for part in (plane[:3], plane[3:6], plane[6:9], plane[9:])
    )
    steps = np.array([along_row * between_columns, along_column * between_rows])
    pixels = np.array([(0, 0), (1, 0), (0, 1)])
    origin, column, row = geometry.world_to_voxel(ras_from_lps(position + pixels @ steps))
    grid = np.rint([column - origin, row - origin])
    corners = np.array([(0, 0), (size[0] - 1, 0), (0, size[1] - 1)])
    nearest = geometry.voxel_to_world(np.rint(origin) + corners @ grid)
    off_mm = float(np.linalg.norm(nearest - ras_from_lps(position + corners @ steps), axis=1).max())
    # Each step goes along one axis by one voxel, and not both along the same.
    upright = (np.abs(grid).sum(axis=0) <= 1).all() and (np.abs(grid).sum(axis=1) == 1).all()
    axes = [int(axis) for axis in np.abs(grid).argmax(axis=1)]
    normal = next(axis for axis in range(3) if axis not in axes)
    allowed = max(ROUNDING_MM, min(EVENED_MM, EVENED_SHARE * geometry.spacing_mm[normal]))
    if not upright or off_mm > allowed + 1e-9:
        shape, spacing = ("x".join(f"{part:g}" for part in parts) for parts in (geometry.shape, geometry.spacing_mm))
        raise GeometryError(
            f"{name}, {size[0]}x{size[1]} pixels of {between_columns:g}x{between_rows:g} mm, isn't on the image's grid,"
            f" {shape} voxels of {spacing} mm: "
            + (f"pixels lie {off_mm:.3g} mm off the nearest voxels" if upright else "spacing or orientation differ")
            + "; give the image that it was made on",
            code="grid-mismatch",
            path=path,
        )
    return _placed(np.rint(origin).astype(int), grid.astype(int), axes, size, geometry, off_mm)


def _placed(
    origin: npt.NDArray[np.int_],
    grid: npt.NDArray[np.int_],
    axes: list[int],
    size: tuple[int, int],
    geometry: Geometry,
    off_mm: float,
) -> _Place:
    """Place of a frame whose first pixel is voxel `origin`, and whose columns and rows step by `grid` along `axes`."""
    normal = 3 - sum(axes)
    k = int(origin[normal])
    beyond = not 0 <= k < geometry.shape[normal]
    where: list[int | slice] = [k, k, k]
    crop, flipped = {}, {}
    for axis, step, length in zip(axes, grid, size, strict=True):
        flipped[axis] = int(step[axis])
        start = int(origin[axis]) - (length - 1 if step[axis] < 0 else 0)
        low = max(start, 0)
        high = low if beyond else max(low, min(start + length, geometry.shape[axis]))
        where[axis] = slice(low, high)
        crop[axis] = slice(low - start, high - start)
    first, second = sorted(axes)
    return _Place(
        tuple(where), (crop[first], crop[second]), axes[0] < axes[1], (flipped[first], flipped[second]), off_mm
    )


def _pixels(dataset: FileDataset, wanted: Sequence[bool], path: Path) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Index and stored values [row, column] of each frame that is wanted, one frame in memory at a time."""
    syntax = transfer_syntax(dataset)
    rows, columns, bits = (int(required(dataset, keyword, path)) for keyword in ("Rows", "Columns", "BitsAllocated"))
    held = len(required(dataset, "PixelData", path))
    needed = (rows * columns * bits * len(wanted) + 7) // 8
    if rows * columns < 1 or (not syntax.is_encapsulated and held < needed):
        raise InputError(
            f"{len(wanted)} frames of {columns}x{rows} pixels need {needed} bytes, {held} are there",
            code="unreadable",
            path=path,
        )
    if bits not in (1, 8, 16) or int(dataset.get("SamplesPerPixel") or 1) != 1 or rows * columns > FRAME_PIXELS:
        raise InputError(
            f"frames of {columns}x{rows} pixels of {bits} bits and {dataset.get('SamplesPerPixel')} samples",
            code="unsupported",
            path=path,
        )
    if bits == 1 and not syntax.is_encapsulated:
        yield from _bits(dataset, wanted, rows * columns)
    else:
        yield from _decoded(dataset, wanted, path)


def _bits(dataset: FileDataset, wanted: Sequence[bool], pixels: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Frames of one bit a pixel; the next one starts at the next bit, where pydicom's frames start at a byte."""
    data = np.frombuffer(dataset.PixelData, np.uint8)
    if not dataset.original_encoding[1] and dataset["PixelData"].VR == "OW":
        data = data[: data.size // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    for index in np.flatnonzero(wanted).tolist():
        first, last = index * pixels, (index + 1) * pixels
        part = np.unpackbits(data[first // 8 : (last + 7) // 8], bitorder="little")
        yield index, part[first % 8 :][:pixels].reshape(dataset.Rows, dataset.Columns)


def _decoded(dataset: FileDataset, wanted: Sequence[bool], path: Path) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Frames by pydicom's decoders."""
    syntax = transfer_syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        raise InputError(f"no codec for {syntax.name}; decompress the file first", code="unsupported", path=path)
    dataset.file_meta.TransferSyntaxUID = syntax
    # gdcm ends the whole process on some damaged images.
    plugin = next((name for name in decoder.available_plugins if name != "gdcm"), "")
    # Compressed frames are found one after another; asking for them by number would start anew for each.
    indices = range(len(wanted)) if syntax.is_encapsulated else [index for index, want in enumerate(wanted) if want]
    if not indices:
        return
    frames = decoder.iter_array(
        dataset, indices=None if syntax.is_encapsulated else indices, raw=True, decoding_plugin=plugin
    )
    for index, (frame, _) in zip(indices, frames, strict=True):
        if frame.shape != (dataset.Rows, dataset.Columns):
            raise InputError(f"frame {index + 1} is an image of another size", code="unreadable", path=path)
        if wanted[index]:
            yield index, frame
