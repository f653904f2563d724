"""``preview.png``: three planes through the largest label, the mask's outlines over the scan.

The picture shows the patient, not the file: however a scan is stored, its picture is the same. Planes are the grid's
own, in radiological convention (the patient's right is on the left), with the letters of the nearest directions.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from volseg.errors import GeometryError
from volseg.files import write_atomically
from volseg.geometry import AxisMap, Geometry, Shape
from volseg.volume import Label, LabelVolume, Volume, Voxels

#: Orientation that pictures are cut from: rows and columns of each plane then run as they are shown.
SHOWN = "LPI"
#: Window of CT in Hounsfield units: soft tissue.
CT_WINDOW = (-160.0, 240.0)
#: Quantiles of other scans that become black and white; voxels of the lowest value, the air around, don't count.
QUANTILES = (0.01, 0.99)
#: A scan of unknown modality with values below this is taken for CT.
CT_BELOW = -500
#: Labels and "more" in the legend at most, and columns of it.
LEGEND_CELLS, LEGEND_COLUMNS = 12, 4
#: Longest name in the legend and longest case name, in letters.
NAME_LENGTH, TITLE_LENGTH = 26, 70

# The layout, in pixels.
_PANEL, _GAP, _MARGIN, _TITLE, _LEGEND_ROW, _OUTLINE = 460, 56, 40, 84, 28, 2
_WIDTH = 3 * _PANEL + 2 * _GAP + 2 * _MARGIN
_SMALL, _MEDIUM, _LARGE = 15, 17, 19  # heights of letters
_BACKGROUND, _TEXT, _DIM = "#15171a", "#f2f2f2", "#9aa0a6"

_OPPOSITE = {"R": "L", "A": "P", "S": "I"}

Slice = npt.NDArray[np.generic]
Colours = Mapping[int, tuple[int, int, int]]
#: Colour and text in the legend.
Entry = tuple[tuple[int, int, int] | None, str]


@dataclass(frozen=True)
class Panel:
    """One plane as it is shown: rows downwards, columns to the right.

    Attributes
    ----------
    name
        Name of the plane.
    left, top
        Letter of the direction to that side.
    scan, mask
        Arrays [row, column].
    size_mm
        Height and width.
    """

    name: str
    left: str
    top: str
    scan: Slice
    mask: Slice
    size_mm: tuple[float, float]

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width on the picture: the longer side fills the panel, proportions are those of the body."""
        scale = _PANEL / max(self.size_mm)
        return max(round(self.size_mm[0] * scale), 1), max(round(self.size_mm[1] * scale), 1)


def write_preview(volume: Volume, mask: LabelVolume, path: Path) -> None:
    """Write the picture of a case as PNG, 1572 pixels wide.

    Parameters
    ----------
    volume
        The scan; its first channel is shown. CT is windowed to soft tissue, other scans by their quantiles.
    mask
        Its segmentation. Where it is empty, the planes go through the middle of the scan.
    path
        File to write.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: scan and segmentation lie on different grids.
    """
    difference = volume.geometry.difference(mask.geometry)
    if difference is not None:
        raise GeometryError(f"the mask isn't on the scan's grid: {difference}", code="grid-mismatch", path=path)
    write_atomically(path, png(_page(volume, mask)))


def preview_pixels(volume: Volume, mask: LabelVolume) -> npt.NDArray[np.uint8]:
    """The picture that `write_preview` writes, of a mask on the scan's grid: [row, column, red green blue]."""
    return np.asarray(_page(volume, mask))


def _page(volume: Volume, mask: LabelVolume) -> Image.Image:
    axes = AxisMap.between(volume.geometry.orientation, SHOWN)
    scan, values = axes.apply(volume.array_CIJK[0]), axes.apply(mask.array)
    geometry = volume.geometry.turned(axes)
    counts = dict(mask.voxel_counts())
    return draw(
        cut(scan, values, geometry, focus(values, geometry, counts)),
        grey_window(scan, volume.source.modality),
        {label.value: label.colour for label in mask.labels},
        legend(mask.labels, counts, geometry.voxel_volume_ml),
        (volume.source.name + ("" if any(counts.values()) else "  (empty mask)"), _grid(geometry)),
    )


def _grid(geometry: Geometry) -> str:
    size = " × ".join(str(size) for size in geometry.shape)
    spacing = " × ".join(f"{spacing:.3g}" for spacing in geometry.spacing_mm)
    return f"RL × AP × SI: {size} voxels of {spacing} mm"


def focus(mask: npt.NDArray[np.unsignedinteger], geometry: Geometry, counts: Mapping[int, int]) -> Shape:
    """Index of the largest label's voxel that is nearest to its centre, or of the middle where there is none."""
    largest = max(counts, key=lambda value: counts[value], default=0)
    if not counts.get(largest, 0):
        i, j, k = (size // 2 for size in mask.shape)
        return i, j, k
    indices = np.argwhere(mask == largest)
    away = (indices - indices.mean(axis=0)) * geometry.spacing_mm
    i, j, k = indices[np.argmin((away**2).sum(axis=1))]
    return int(i), int(j), int(k)


def cut(scan: Voxels, mask: Voxels, geometry: Geometry, at: Shape) -> tuple[Panel, Panel, Panel]:
    """Axial, coronal and sagittal plane through voxel `at`; arrays and geometry are in the orientation `SHOWN`."""
    i, j, k = at
    width, depth, height = geometry.extent_mm
    return (
        Panel("axial", "R", "A", scan[:, :, k].T, mask[:, :, k].T, (depth, width)),
        Panel("coronal", "R", "S", scan[:, j, :].T, mask[:, j, :].T, (height, width)),
        Panel("sagittal", "A", "S", scan[i, :, :].T, mask[i, :, :].T, (height, depth)),
    )


def grey_window(scan: Voxels, modality: str | None) -> tuple[float, float]:
    """Values that are shown as black and as white."""
    # A million voxels tell the quantiles well enough.
    step = max(1, round((scan.size / 1e6) ** (1 / 3)))
    values = scan[::step, ::step, ::step].ravel().astype(np.float64)
    if modality == "CT" or (modality is None and values.min() < CT_BELOW):
        return CT_WINDOW
    inside = values[values > values.min()]
    if inside.size == 0:
        return float(values.min()), float(values.min()) + 1
    low, high = np.quantile(inside, QUANTILES)
    return float(low), float(max(high, low + 1e-6 * max(abs(low), 1)))


def legend(labels: tuple[Label, ...], counts: Mapping[int, int], voxel_ml: float) -> list[Entry]:
    """Colour and text of the legend's entries, the largest label first; the last one counts those left out."""
    by_size = sorted(labels, key=lambda label: -counts[label.value])
    if len(by_size) > LEGEND_CELLS:
        by_size = [label for label in by_size if counts[label.value]]
    shown = by_size if len(by_size) <= LEGEND_CELLS else by_size[: LEGEND_CELLS - 1]
    entries: list[Entry] = [
        (label.colour, f"{_short(label.name, NAME_LENGTH)}  {_millilitres(counts[label.value] * voxel_ml)}")
        for label in shown
    ]
    if len(shown) < len(by_size):
        entries.append((None, f"+ {len(by_size) - len(shown)} more"))
    return entries


def _millilitres(volume_ml: float) -> str:
    if 0 < volume_ml < 0.01:
        return "< 0.01 ml"
    return f"{volume_ml:.{0 if volume_ml >= 100 else 1 if volume_ml >= 10 else 2}f} ml"


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def outlines(mask: Slice, size_px: tuple[int, int], colours: Colours) -> npt.NDArray[np.uint8]:
    """(height, width, 4) picture of the edges of a plane's labels, `_OUTLINE` pixels inside each, along voxel edges."""
    rows, columns = (
        ((np.arange(pixels) + 0.5) * voxels / pixels).astype(int)
        for pixels, voxels in zip(size_px, mask.shape, strict=True)
    )
    enlarged = np.pad(mask[np.ix_(rows, columns)], _OUTLINE)
    height, width = size_px
    inner = enlarged[_OUTLINE:-_OUTLINE, _OUTLINE:-_OUTLINE]
    # An edge is where not all values nearby are one: the largest and the smallest, along one axis, then the other.
    steps = range(2 * _OUTLINE + 1)
    highest, lowest = (
        reduce(pick, [down[:, n : n + width] for n in steps])
        for pick in (np.maximum, np.minimum)
        for down in [reduce(pick, [enlarged[n : n + height] for n in steps])]
    )
    edge = highest != lowest
    picture = np.zeros((height, width, 4), dtype=np.uint8)
    for value, colour in colours.items():
        picture[edge & (inner == value)] = (*colour, 255)
    return picture


def draw(
    panels: Sequence[Panel],
    window: tuple[float, float],
    colours: Colours,
    entries: Sequence[Entry],
    title: tuple[str, str],
) -> Image.Image:
    """The whole picture: a line of title (left, right), the panels, the legend's entries."""
    rows = -(-len(entries) // LEGEND_COLUMNS)
    tallest = max(panel.size_px[0] for panel in panels)
    page = Image.new("RGB", (_WIDTH, _TITLE + tallest + 2 * _MARGIN + rows * _LEGEND_ROW), _BACKGROUND)
    for number, panel in enumerate(panels):
        rows_px, columns_px = panel.size_px
        left = _MARGIN + number * (_PANEL + _GAP) + (_PANEL - columns_px) // 2
        _draw_panel(page, (left, _TITLE + (tallest - rows_px) // 2), panel, window, colours)
    pen = ImageDraw.Draw(page)
    _write(pen, (_MARGIN, 26), _short(title[0], TITLE_LENGTH), size=_LARGE, anchor="lm")
    _write(pen, (_WIDTH - _MARGIN, 26), title[1], colour=_DIM, anchor="rm")
    for number, (colour, text) in enumerate(entries):
        row, column = divmod(number, LEGEND_COLUMNS)
        x = _MARGIN + column * (_WIDTH - 2 * _MARGIN) // LEGEND_COLUMNS
        y = _TITLE + tallest + 3 * _MARGIN // 2 + row * _LEGEND_ROW
        if colour is not None:
            pen.rectangle((x, y - 7, x + 13, y + 6), colour)
        _write(pen, (x + 22, y), text, colour=_TEXT if colour else _DIM, anchor="lm")
    return page


def _draw_panel(
    page: Image.Image, at: tuple[int, int], panel: Panel, window: tuple[float, float], colours: Colours
) -> None:
    """One plane, its upper left corner `at`, and the letters of its sides around it."""
    (x, y), (height, width), (low, high) = at, panel.size_px, window
    scan = Image.fromarray(np.ascontiguousarray(panel.scan, dtype=np.float32))
    # Interpolated before it is cut to the window, or bright edges would get steps.
    values = np.asarray(scan.resize((width, height), Image.Resampling.BILINEAR))
    grey = ((values - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)
    page.paste(Image.fromarray(grey), (x, y))
    overlay = Image.fromarray(outlines(panel.mask, panel.size_px, colours))
    page.paste(overlay, (x, y), overlay)
    pen = ImageDraw.Draw(page)
    _write(pen, (x - 13, y + height // 2), panel.left, size=_MEDIUM)
    _write(pen, (x + width + 13, y + height // 2), _OPPOSITE[panel.left], size=_MEDIUM)
    _write(pen, (x + width // 2, y - 13), panel.top, size=_MEDIUM)
    _write(pen, (x + width // 2, y + height + 13), _OPPOSITE[panel.top], size=_MEDIUM)


def _write(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    colour: str = _TEXT,
    size: int = _SMALL,
    anchor: str = "mm",
) -> None:
    pen.text(at, text, colour, _font(size), anchor=anchor)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters everywhere."""
    # Found without importing that, which takes half a second.
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None  # it is required
    path = Path(spec.origin or "").parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def png(page: Image.Image) -> bytes:
    """A picture as PNG, compressed lightly: about half of the time for a third more bytes."""
    file = io.BytesIO()
    page.save(file, "PNG", compress_level=1)
    return file.getvalue()
