"""A scan whose slices are stacked at an angle (gantry tilt), on straight slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from volseg.volume import Volume


def straightened(volume: Volume) -> Volume:
    """Put a scan onto a grid of the same slices, stacked along their normal.

    Each slice is shifted by a fraction of a pixel, linearly interpolated within itself alone; the grid is larger by
    what the stack leans, and what no slice covers gets the scan's lowest value (in a CT air, or the scanner's own
    padding).

    Parameters
    ----------
    volume
        Scan with slices along k; [i, j, k], or [c, i, j, k] where there are channels.

    Returns
    -------
    Volume
        float32; ``source.stored`` is the grid of `volume`.
    """
    # Imported here, since it takes torch along.
    from volseg.resample import resampled, straight_grid

    stored = volume.geometry
    grid = straight_grid(stored)
    channels = [resampled(channel, stored, grid, order=1, fill=float(channel.min())) for channel in volume.array_CIJK]
    array = channels[0] if volume.array.ndim == 3 else np.stack(channels)
    return Volume(array, grid, replace(volume.source, stored=stored))
