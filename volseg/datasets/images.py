"""The image of a labelled case: one file of a volume, or a file a channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volseg.datasets.cases import Case
from volseg.errors import GeometryError, UsageError
from volseg.loaders import load
from volseg.volume import Volume


def load_images(case: Case, names: Sequence[str] | None = None) -> Volume:
    """Read a case's channels as one volume.

    Parameters
    ----------
    case
        A case of a data set.
    names
        Channels to read, in this order, where the data set says what each image is; None: all, in its own order.

    Returns
    -------
    Volume
        [i, j, k], or [c, i, j, k] where there are several channels.

    Raises
    ------
    GeometryError
        Code ``grid-mismatch``: the channels don't lie on one grid.
    RefusalError
        No image is called so, or one can't be read.
    UsageError
        The case is a label map alone.
    """
    if not case.images:
        raise UsageError(
            f"case {case.name} has no image: label maps alone are for a recipe that has a training.synthesis"
        )
    paths = case.images if names is None else case.images_of(names)
    first, *others = [load(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if difference := first.geometry.difference(other.geometry):
            raise GeometryError(f"not on the grid of {paths[0]}: {difference}", code="grid-mismatch", path=path)
    if not others:
        return first
    return first.with_array(np.concatenate([volume.array_CIJK for volume in (first, *others)]))
