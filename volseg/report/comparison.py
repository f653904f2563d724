"""A prediction above its reference, in the same planes."""

from __future__ import annotations

from PIL import Image

from volseg.geometry import AxisMap
from volseg.report.pictures import SHOWN, cut, draw, focus, grey_window, legend
from volseg.volume import LabelVolume, Volume

#: Width of the picture in pixels: a report that holds several is a few megabytes.
WIDTH = 1000


def draw_comparison(scan: Volume, mask: LabelVolume, reference: LabelVolume, text: str) -> Image.Image:
    """Planes through the reference's largest label with the prediction's outlines, and below with the reference's.

    Parameters
    ----------
    scan
        The scan, whose first channel is shown.
    mask, reference
        Masks on its grid.
    text
        Title.
    """
    axes = AxisMap.between(scan.geometry.orientation, SHOWN)
    geometry, values = scan.geometry.turned(axes), axes.apply(scan.array_CIJK[0])
    truth = axes.apply(reference.array)
    at = focus(truth, geometry, dict(reference.voxel_counts()))
    pages = []
    for name, labels in (("prediction", mask), ("reference", reference)):
        pages.append(
            draw(
                cut(values, axes.apply(labels.array), geometry, at),
                grey_window(values, scan.source.modality),
                {label.value: label.colour for label in labels.labels},
                legend(labels.labels, dict(labels.voxel_counts()), geometry.voxel_volume_ml),
                (f"{name}: {text}", ""),
            )
        )
    both = Image.new("RGB", (pages[0].width, sum(page.height for page in pages)))
    both.paste(pages[0], (0, 0))
    both.paste(pages[1], (0, pages[0].height))
    return both.resize((WIDTH, round(both.height * WIDTH / both.width)), Image.Resampling.LANCZOS)
