"""Maps of probabilities and entropy as NIfTI files on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from volseg.export.nifti import write_slabs
from volseg.export.outputs import FinishedCase, Written
from volseg.inference.maps import Map, Maps
from volseg.results import MAPS
from volseg.text import safe_name
from volseg.volume import LabelVolume


def file_name(chosen: Map) -> str:
    """``<value>-<name>.nii.gz`` of a label, ``entropy.nii.gz``."""
    name = safe_name(chosen.name)
    return f"{name if chosen.value is None else f'{chosen.value}-{name}'}.nii.gz"


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write the maps that were made of the case."""
    assert case.maps is not None  # or they weren't asked for
    for _ in write_maps(case.maps, case.mask, folder):
        pass
    return Written()


def write_maps(maps: Maps, mask: LabelVolume, folder: Path) -> Iterator[str]:
    """Write every map on the grid of the mask, one after the other.

    Parameters
    ----------
    maps
        Maps from the segmentation of the same scan.
    mask
        The mask as it is written: its grid and source are the maps'.
    folder
        Folder of the case; maps lie in its `volseg.results.MAPS`.

    Yields
    ------
    str
        The file that is there now, relative to `folder`.

    Raises
    ------
    ExportError
        As `volseg.export.nifti.write_slabs`.
    """
    (folder / MAPS).mkdir(parents=True, exist_ok=True)
    for chosen in maps.maps:
        name = f"{MAPS}/{file_name(chosen)}"
        slabs = maps.slabs(chosen, mask.geometry)
        write_slabs(folder / name, mask, slabs, slope=chosen.slope, description=chosen.description)
        yield name
