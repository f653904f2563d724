"""Which slices are there, under which names and numbers, and how far apart."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
from pydicom.uid import RLELossless

from benchmarks.geometry.series import Series, changed, ct, decimals, mr, numbered, other_values, uid, write
from benchmarks.geometry.truth import Truth, refuse, right, row

MIDDLE = 5


@row("dicom")
def intact_ct(folder: Path) -> Truth:
    """A CT series of 12 slices of 3 mm every 2 mm, as it should be."""
    series = ct()
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def intact_mr(folder: Path) -> Truth:
    """An MR series of 12 slices every 1 mm, as it should be."""
    series = mr()
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def missing_first_slice(folder: Path) -> Truth:
    """The first slice is absent; the others are a volume."""
    series = ct()
    write(folder, series.without(0))
    return right(series.image(slice(1, None)))


@row("dicom")
def missing_last_slice(folder: Path) -> Truth:
    """The last slice is absent; the others are a volume."""
    series = ct()
    write(folder, series.without(11))
    return right(series.image(slice(0, 11)))


@row("dicom")
def missing_middle_slice(folder: Path) -> Truth:
    """One slice in the middle is absent."""
    write(folder, ct().without(MIDDLE))
    return refuse("missing-slice")


@row("dicom")
def missing_second_slice(folder: Path) -> Truth:
    """The slice beside the first is absent."""
    write(folder, ct().without(1))
    return refuse("missing-slice")


@row("dicom")
def missing_two_slices(folder: Path) -> Truth:
    """Two slices at different places are absent."""
    write(folder, ct().without(3, 8))
    return refuse("missing-slice")


@row("dicom")
def missing_two_neighbours(folder: Path) -> Truth:
    """Two slices beside each other are absent."""
    write(folder, ct().without(5, 6))
    return refuse("missing-slice")


@row("dicom")
def every_second_slice(folder: Path) -> Truth:
    """Only every second slice was sent: an even volume of 4 mm, whatever SliceThickness says."""
    series = ct()
    write(folder, series.files[::2])
    return right(series.image(slice(None, None, 2)))


@row("dicom")
def duplicate_byte_copy(folder: Path) -> Truth:
    """One file is there twice, byte for byte, under another name."""
    series = ct()
    paths = write(folder, series.files)
    shutil.copy(paths[MIDDLE], folder / "copy_of_a_slice.dcm")
    return right(series.image())


@row("dicom")
def duplicate_series_in_subfolder(folder: Path) -> Truth:
    """The whole series is there twice: in the folder and in a folder within it."""
    series = ct()
    for path in write(folder, series.files):
        (folder / "again").mkdir(exist_ok=True)
        shutil.copy(path, folder / "again" / path.name)
    return right(series.image())


@row("dicom")
def duplicate_sent_twice(folder: Path) -> Truth:
    """One instance is there twice, the same UID and pixels, the second time with another sender in its header."""
    series = ct()
    paths = write(folder, series.files)
    again = ct().files[MIDDLE]
    again.StationName = "ARCHIVE2"
    write(folder, [again], name=lambda _: f"{paths[MIDDLE].stem}_2.dcm")
    return right(series.image())


@row("dicom")
def duplicate_otherwise_compressed(folder: Path) -> Truth:
    """One instance is there twice, the same UID and pixels, the second time compressed (RLE)."""
    series = ct()
    write(folder, series.files)
    write(folder, [ct().files[MIDDLE]], syntax=RLELossless, name=lambda _: "again.dcm")
    return right(series.image())


@row("dicom")
def duplicate_uid_other_pixels(folder: Path) -> Truth:
    """Two different images at one position carry the same SOP instance UID."""
    series = ct()
    write(folder, series.files)
    write(folder, [ct(stored=other_values(series)).files[MIDDLE]], name=lambda _: "other.dcm")
    return refuse("duplicate-slice")


@row("dicom")
def duplicate_position_other_pixels(folder: Path) -> Truth:
    """Two different images lie at one position, each with its own UID."""
    series = ct()
    write(folder, series.files)
    write(folder, [ct(stored=other_values(series), part="b").files[MIDDLE]], name=lambda _: "other.dcm")
    return refuse("duplicate-slice")


@row("dicom")
def one_uid_for_all(folder: Path) -> Truth:
    """An anonymiser gave every slice the same SOP instance UID."""
    series = ct()
    series.put(SOPInstanceUID=uid("all"))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def shuffled_names(folder: Path) -> Truth:
    """The names of the files say nothing about their order."""
    series = ct()
    order = random.Random(4).sample(range(12), 12)
    write(folder, series.files, name=lambda index: numbered(order[index]))
    return right(series.image())


@row("dicom")
def reversed_names(folder: Path) -> Truth:
    """The names of the files run against the positions."""
    series = ct()
    write(folder, series.files, name=lambda index: numbered(11 - index))
    return right(series.image())


@row("dicom")
def reversed_instance_numbers(folder: Path) -> Truth:
    """InstanceNumber runs against the positions, as in many head-first series."""
    series = ct()
    series.each("InstanceNumber", lambda index: 12 - index)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def shuffled_instance_numbers(folder: Path) -> Truth:
    """InstanceNumber is in the order of acquisition: odd slices first, then even ones."""
    series = ct()
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    series.each("InstanceNumber", lambda index: order.index(index) + 1)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def no_instance_numbers(folder: Path) -> Truth:
    """InstanceNumber is absent."""
    series = ct()
    series.put(InstanceNumber=None)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def one_instance_number_for_all(folder: Path) -> Truth:
    """InstanceNumber is 1 in every slice; the names of the files say nothing either."""
    series = ct()
    series.put(InstanceNumber=1)
    order = random.Random(5).sample(range(12), 12)
    write(folder, series.files, name=lambda index: numbered(order[index]))
    return right(series.image())


def _jitter(folder: Path, mm: float) -> Series:
    """Move the inner slices to and fro along the normal by up to `mm`; the ends stay."""
    series = ct()
    for index in range(1, 11):
        series.move([index], series.normal * mm * (1 if index % 2 else -1))
    write(folder, series.files)
    return series


@row("dicom")
def jitter_1e_5_mm(folder: Path) -> Truth:
    """Positions are off by 1e-5 mm: rounding."""
    return right(_jitter(folder, 1e-5).image())


@row("dicom")
def jitter_0_05_mm(folder: Path) -> Truth:
    """Positions are off by 0.05 mm, to be evened out; voxels may be that far from where the file says."""
    return right(_jitter(folder, 0.05).image(tolerance_mm=0.051), note="evened")


@row("dicom")
def jitter_0_5_mm(folder: Path) -> Truth:
    """Positions are off by 0.5 mm of 2 mm: no even grid holds them."""
    _jitter(folder, 0.5)
    return refuse("varying-spacing")


@row("dicom")
def jitter_sideways(folder: Path) -> Truth:
    """Positions are off by 0.5 mm within the slices' own plane."""
    series = ct()
    for index in range(1, 11):
        series.move([index], [0.5 * (-1) ** index, 0, 0])
    write(folder, series.files)
    return refuse("varying-spacing")


@row("dicom")
def one_slice_shifted_sideways(folder: Path) -> Truth:
    """One slice lies 5 mm beside its neighbours, in its own plane."""
    series = ct()
    series.move([MIDDLE], [5, 0, 0])
    write(folder, series.files)
    return refuse("varying-spacing")


@row("dicom")
def one_slice_displaced(folder: Path) -> Truth:
    """One slice lies 1 mm nearer to its neighbour than it should."""
    series = ct()
    series.move([MIDDLE], series.normal)
    write(folder, series.files)
    return refuse("varying-spacing")


def _place(series: Series, heights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Put slice `index` at ``heights[index]`` mm along the normal from the first."""
    for index, height in enumerate(heights):
        series.files[index].ImagePositionPatient = decimals(series.affine[:3, 3] + series.normal * height)


@row("dicom")
def spacing_2_then_4_mm(folder: Path) -> Truth:
    """One half has slices every 2 mm, the other every 4 mm."""
    series = ct()
    _place(series, np.cumsum([0.0, *[2.0] * 5, *[4.0] * 6]))
    write(folder, series.files)
    # To the positions alone, every second slice of one half is absent.
    return refuse("varying-spacing", "missing-slice")


@row("dicom")
def spacing_2_then_3_mm(folder: Path) -> Truth:
    """One half has slices every 2 mm, the other every 3 mm."""
    series = ct()
    _place(series, np.cumsum([0.0, *[2.0] * 5, *[3.0] * 6]))
    write(folder, series.files)
    return refuse("varying-spacing")


@row("dicom")
def spacing_that_grows(folder: Path) -> Truth:
    """Each slice is 2 % further from its neighbour than the one before."""
    series = ct()
    _place(series, np.cumsum([0.0, *(3 * 1.02**index for index in range(11))]))
    write(folder, series.files)
    return refuse("varying-spacing")


@row("dicom")
def thin_slices(folder: Path) -> Truth:
    """Slices every 0.1 mm: small distances are no rounding errors."""
    series = ct(affine=changed(ct(), spacing=(0.9765625, 0.9765625, 0.1)))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def two_slices(folder: Path) -> Truth:
    """A volume of two slices."""
    series = ct()
    write(folder, series.files[:2])
    return right(series.image(slice(0, 2)))


@row("dicom")
def single_slice(folder: Path) -> Truth:
    """One slice alone, which is no volume; an image of one slice in its true place is faithful as well."""
    series = ct()
    write(folder, series.files[:1])
    return refuse("not-3d", also=[[series.image(slice(0, 1))]])
