"""A mask of everything that outlines stumble over, and orientations to write it in."""

from __future__ import annotations

import numpy as np

AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)

SHAPE = (12, 9, 5)


def shapes() -> np.ndarray:
    """Everything that outlines stumble over, in two labels."""
    array = np.zeros(SHAPE, np.uint8)
    # A ring with an island in its hole, and another label between them.
    array[1:8, 1:8, 0] = 1
    array[2:7, 2:7, 0] = 0
    array[4, 4, 0] = 1
    array[3, 3, 0] = 2
    # Lines of one voxel, along and across, and one that touches a corner alone.
    array[2, :, 1] = array[:, 4, 1] = 1
    array[6, 7, 1] = array[7, 8, 1] = array[8, 7, 1] = 2
    # The whole slice but for two holes that touch at a corner, and one at the border.
    array[:, :, 2] = 1
    array[3, 3, 2] = array[4, 4, 2] = array[11, 2, 2] = 0
    # Corners of the grid.
    array[0, 0, 4] = array[11, 8, 4] = 2
    array[11, 0, 4] = 1
    return array
