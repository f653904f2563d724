"""Mosaics: an image that holds the slices of a volume side by side, row after row, as Siemens' and UIH's scanners have.

A tile becomes an image of its own, with its position; from there on it is a slice as any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset

from volseg.errors import GeometryError
from volseg.geometry import Floats
from volseg.loaders.dicom.private import UIH_FRAMES
from volseg.loaders.dicom.values import numbers

#: Most slices of one image.
_MOST_TILES = 10_000
#: Least cosine between the normal that Siemens' CSA header states and row x column, or its opposite.
_NORMAL = 0.99


def is_mosaic(values: Mapping[str, str]) -> bool:
    """Whether an image says that it holds several slices."""
    said = values.get("ImageType", "").upper()
    return "MOSAIC" in said or "VFRAME" in said or _count(values) > 1


def tiles(values: Mapping[str, str]) -> list[dict[str, str]]:
    """What differs between the tiles of a mosaic and the whole image, in the order of its tiles.

    Raises
    ------
    GeometryError
        Code ``missing-geometry``: the header doesn't say how many slices there are, or where.
    """
    count = _count(values)
    rows, columns = _size(values, count)
    positions = _stated(values, count) if "TilePositions" in values else _computed(values, count, rows, columns)
    return [
        {"Rows": str(rows), "Columns": str(columns), "ImagePositionPatient": "\\".join(f"{x:.17g}" for x in position)}
        for position in positions.tolist()
    ]


def side(count: int) -> int:
    """How many tiles there are in a row, and how many rows, of a mosaic of `count` slices."""
    return math.isqrt(count - 1) + 1


def tile_positions(dataset: Dataset) -> dict[str, str]:
    """Positions of the tiles of a UIH mosaic, three numbers each, under a keyword of ours; else nothing."""
    try:
        items = list(dataset[UIH_FRAMES].value)
        positions = [str(number) for item in items for number in item.ImagePositionPatient]
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return {"TilePositions": "\\".join(positions)}


def _count(values: Mapping[str, str]) -> int:
    for keyword in ("ImagesInMosaic", "CSAImagesInMosaic"):
        said = numbers(values.get(keyword, ""), 1)
        if said and 1 <= said[0] <= _MOST_TILES and said[0] == int(said[0]):
            return int(said[0])
    return 0


def _size(values: Mapping[str, str], count: int) -> tuple[int, int]:
    """Rows and columns of a tile."""
    size = [numbers(values.get(keyword, ""), 1) for keyword in ("Rows", "Columns")]
    if count == 0 or size[0] is None or size[1] is None:
        raise _refused("how many slices there are")
    rows, columns = int(size[0][0]), int(size[1][0])
    if rows % side(count) or columns % side(count):
        raise GeometryError(
            f"a mosaic of {count} slices, whose {columns} x {rows} pixels are no {side(count)} x {side(count)} tiles",
            code="missing-geometry",
        )
    return rows // side(count), columns // side(count)


def _stated(values: Mapping[str, str], count: int) -> Floats:
    positions = numbers(values["TilePositions"], 3 * count)
    if positions is None:
        raise _refused("where each slice lies")
    return np.reshape(positions, (count, 3))


def _computed(values: Mapping[str, str], count: int, rows: int, columns: int) -> Floats:
    """Positions (N, 3) of a Siemens mosaic's tiles.

    ImagePositionPatient is where the first pixel of an image of the mosaic's size would be whose centre is the first
    tile's (nibabel's notes on Siemens mosaics derive it). Tiles go along the normal that the CSA header states.
    """
    position = numbers(values.get("ImagePositionPatient", ""), 3)
    directions = numbers(values.get("ImageOrientationPatient", ""), 6)
    spacing = numbers(values.get("PixelSpacing", ""), 2)
    between = numbers(values.get("SpacingBetweenSlices", ""), 1)
    normal = numbers(values.get("SliceNormalVector", ""), 3)
    if position is None or directions is None or spacing is None or between is None or between[0] <= 0:
        raise _refused("where its slices lie (position, orientation, pixel spacing, spacing between slices)")
    row, column = np.reshape(directions, (2, 3))
    across = np.cross(row, column)
    along = float(across @ np.array(normal)) if normal else 0.0
    if not abs(along) >= _NORMAL:
        raise _refused("in which direction its slices follow each other (SliceNormalVector of the CSA header)")
    # One more row of tiles is as many pixels as the others hold.
    more = side(count) - 1
    first = position + row * spacing[1] * columns * more / 2 + column * spacing[0] * rows * more / 2
    return np.asarray(first + np.arange(count)[:, None] * between[0] * np.copysign(1, along) * across)


def _refused(what: str) -> GeometryError:
    return GeometryError(
        f"a mosaic, slices side by side in one image, whose header doesn't say {what}; export the series anew with"
        " its private elements, which anonymisers remove",
        code="missing-geometry",
    )
