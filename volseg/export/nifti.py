"""A segmentation as a NIfTI file on the scan's own grid, with the scan's own sform and qform codes and units."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from volseg.errors import ExportError
from volseg.files import write_atomically
from volseg.geometry import Geometry
from volseg.interop import to_nibabel
from volseg.volume import LabelVolume


def write(label_volume: LabelVolume, path: Path) -> tuple[str, ...]:
    """Write `label_volume` to `path`, compressed where that ends in ``.gz``; equal masks give equal bytes.

    Voxels are of the smallest unsigned type that holds every label. What the header says of the grid is told at
    `volseg.interop.to_nibabel`.

    Returns
    -------
    tuple of str
        Notes on what was changed or left out: none.

    Raises
    ------
    ExportError
        Code ``format``: the header's single precision can't hold the grid.
    """
    highest = max([int(label_volume.array.max()), *(label.value for label in label_volume.labels)])
    image = to_nibabel(label_volume.with_array(label_volume.array.astype(np.min_scalar_type(highest))))
    held = Geometry(label_volume.geometry.shape, image.header.get_best_affine())
    difference = held.difference(label_volume.geometry)
    if difference is not None:
        raise ExportError(
            f"NIfTI keeps an affine in single precision, and this grid would come out with {difference}",
            code="format",
            path=path,
        )
    stream = io.BytesIO()
    if path.name.lower().endswith(".gz"):
        # No name and no time in the gzip header: they would differ from run to run.
        with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0, compresslevel=6) as compressed:
            image.to_stream(compressed)
    else:
        image.to_stream(stream)
    write_atomically(path, stream.getvalue())
    return ()
