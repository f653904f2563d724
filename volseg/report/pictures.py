"""``preview.png``: three planes through the largest label, the mask's outlines over the scan.

The picture shows the patient, not the file: however a scan is stored, its picture is the same. Planes are the grid's
own, in radiological convention (the patient's right is on the left), with the letters of the nearest directions.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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
_DPI = 100
_BACKGROUND, _TEXT, _DIM = "#15171a", "#f2f2f2", "#9aa0a6"
_FONT = "DejaVu Sans"  # comes with matplotlib: the same letters everywhere

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
        Of the plane.
    left, top
        Letter of the direction to that side.
    scan, mask
        [row, column].
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


def write_preview(volume: Volume, label_volume: LabelVolume, path: Path) -> None:
    """Write the picture of a case as PNG, 1572 pixels wide.

    Parameters
    ----------
    volume
        The scan; its first channel is shown. CT is windowed to soft tissue, other scans by their quantiles.
    label_volume
        Its segmentation. Where it is empty, the planes go through the middle of the scan.
    path
        Where to write.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: scan and segmentation lie on different grids.
    """
    difference = volume.geometry.difference(label_volume.geometry)
    if difference is not None:
        raise GeometryError(f"the mask isn't on the scan's grid: {difference}", code="grid-mismatch", path=path)
    axes = AxisMap.between(volume.geometry.orientation, SHOWN)
    scan, mask = axes.apply(volume.array_CIJK[0]), axes.apply(label_volume.array)
    geometry = volume.geometry.turned(axes)
    counts = dict(label_volume.voxel_counts())
    figure = _figure(
        cut(scan, mask, geometry, focus(mask, geometry, counts)),
        grey_window(scan, volume.source.modality),
        {label.value: label.colour for label in label_volume.labels},
        legend(label_volume.labels, counts, geometry.voxel_volume_ml),
        (volume.source.name + ("" if any(counts.values()) else "  (empty mask)"), _grid(geometry)),
    )
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A label named in letters that the font lacks gets boxes: nothing that a person at a terminal could mend.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Without the library's name and version: the same case gives the same bytes.
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
    write_atomically(path, stream.getvalue())


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
    edge = np.zeros(size_px, dtype=bool)
    for down in range(2 * _OUTLINE + 1):
        for right in range(2 * _OUTLINE + 1):
            edge |= inner != enlarged[down : down + height, right : right + width]
    picture = np.zeros((height, width, 4), dtype=np.uint8)
    for value, colour in colours.items():
        picture[edge & (inner == value)] = (*colour, 255)
    return picture


def _figure(
    panels: Sequence[Panel],
    window: tuple[float, float],
    colours: Colours,
    entries: Sequence[Entry],
    title: tuple[str, str],
) -> Figure:
    """The whole picture: a line of title (left, right), the panels, the legend's entries."""
    rows = -(-len(entries) // LEGEND_COLUMNS)
    tallest = max(panel.size_px[0] for panel in panels)
    height = _TITLE + tallest + 2 * _MARGIN + rows * _LEGEND_ROW
    figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    for number, panel in enumerate(panels):
        rows_px, columns_px = panel.size_px
        left = _MARGIN + number * (_PANEL + _GAP) + (_PANEL - columns_px) // 2
        top = _TITLE + (tallest - rows_px) // 2
        # Whole pixels: the outlines are drawn pixel for pixel.
        box = (left / _WIDTH, 1 - (top + rows_px) / height, columns_px / _WIDTH, rows_px / height)
        _draw(figure.add_axes(box), panel, window, colours)
    page = figure.add_axes((0, 0, 1, 1), facecolor="none")
    page.set(xlim=(0, _WIDTH), ylim=(height, 0))
    page.set_axis_off()
    _write(page, (_MARGIN, 26), _short(title[0], TITLE_LENGTH), fontsize=14)
    _write(page, (_WIDTH - _MARGIN, 26), title[1], color=_DIM, ha="right")
    for number, (colour, text) in enumerate(entries):
        row, column = divmod(number, LEGEND_COLUMNS)
        x = _MARGIN + column * (_WIDTH - 2 * _MARGIN) / LEGEND_COLUMNS
        y = _TITLE + tallest + 1.5 * _MARGIN + row * _LEGEND_ROW
        if colour is not None:
            page.add_patch(Rectangle((x, y - 7), 14, 14, facecolor=[part / 255 for part in colour], edgecolor="none"))
        _write(page, (x + 22, y), text, color=_TEXT if colour else _DIM)
    return figure


def _draw(axes: Axes, panel: Panel, window: tuple[float, float], colours: Colours) -> None:
    extent = (0.0, panel.size_mm[1], panel.size_mm[0], 0.0)
    low, high = window
    axes.imshow(panel.scan, "gray", vmin=low, vmax=high, extent=extent, aspect="auto", interpolation="hanning")
    overlay = outlines(panel.mask, panel.size_px, colours)
    axes.imshow(overlay, extent=extent, aspect="auto", interpolation="nearest")
    axes.set_axis_off()
    across, down = 13 * panel.size_mm[1] / panel.size_px[1], 13 * panel.size_mm[0] / panel.size_px[0]
    height, width = panel.size_mm
    _write(axes, (-across, height / 2), panel.left, fontsize=12, ha="center")
    _write(axes, (width + across, height / 2), _OPPOSITE[panel.left], fontsize=12, ha="center")
    _write(axes, (width / 2, -down), panel.top, fontsize=12, ha="center")
    _write(axes, (width / 2, height + down), _OPPOSITE[panel.top], fontsize=12, ha="center")


def _write(axes: Axes, at: tuple[float, float], text: str, **style: Any) -> None:
    plain = {"color": _TEXT, "fontsize": 11, "fontfamily": _FONT, "va": "center_baseline", "parse_math": False}
    axes.text(*at, text, **{**plain, **style})
