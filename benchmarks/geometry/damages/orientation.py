"""Where slices face, and headers that say it wrongly, contradict themselves, or don't say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataelem import DataElement

from benchmarks.geometry.series import CT_STEP_MM, Series, changed, ct, decimals, rotation, write
from benchmarks.geometry.truth import Truth, refuse, right, row

MIDDLE = 5


def _facing(folder: Path, directions: npt.ArrayLike) -> Truth:
    """Write a series whose columns, rows and slices run along `directions` (columns, LPS)."""
    series = ct(affine=changed(ct(), directions=directions))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def sagittal(folder: Path) -> Truth:
    """Sagittal slices."""
    return _facing(folder, np.transpose([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]))


@row("dicom")
def coronal(folder: Path) -> Truth:
    """Coronal slices."""
    return _facing(folder, np.transpose([[1, 0, 0], [0, 0, -1], [0, 1, 0]]))


@row("dicom")
def oblique(folder: Path) -> Truth:
    """Slices turned by 20 degrees about one axis."""
    return _facing(folder, rotation(20, 0, 0))


@row("dicom")
def double_oblique(folder: Path) -> Truth:
    """Slices turned about all three axes."""
    return _facing(folder, rotation(20, -35, 12))


@row("dicom")
def oblique_rounded_cosines(folder: Path) -> Truth:
    """Direction cosines are rounded to four decimals, as some scanners write them."""
    series = ct(affine=changed(ct(), directions=rotation(20, -35, 12)))
    cosines = np.round(np.array(series.files[0].ImageOrientationPatient, float), 4)
    series.put(ImageOrientationPatient=decimals(cosines))
    write(folder, series.files)
    return right(series.image(tolerance_mm=0.01))


@row("dicom")
def flipped_orientation_in_all(folder: Path) -> Truth:
    """Every slice's columns run to the patient's right and its rows to the front: a rotated prone image."""
    return _facing(folder, np.diag([-1, -1, 1]))


@row("dicom")
def mirrored_orientation_in_all(folder: Path) -> Truth:
    """Every slice's rows run to the front, so that the normal points to the feet."""
    return _facing(folder, np.diag([1, -1, -1]))


@row("dicom")
def flipped_orientation_in_one(folder: Path) -> Truth:
    """One slice in the middle claims that its columns and rows run the other way."""
    series = ct()
    series.put([MIDDLE], ImageOrientationPatient=decimals([-1, 0, 0, 0, -1, 0]))
    write(folder, series.files)
    return refuse("mixed-orientation")


@row("dicom")
def one_slice_rotated_middle(folder: Path) -> Truth:
    """One slice in the middle is rotated by 5 degrees."""
    series = ct()
    series.turn([MIDDLE], 5)
    write(folder, series.files)
    return refuse("mixed-orientation")


@row("dicom")
def one_slice_rotated_end(folder: Path) -> Truth:
    """The last slice is rotated by 5 degrees; without it the others are a volume."""
    series = ct()
    series.turn([11], 5)
    write(folder, series.files)
    return refuse("mixed-orientation", also=[[series.image(slice(0, 11))]])


@row("dicom")
def radial_slices(folder: Path) -> Truth:
    """Slices fan out about an axis, each 15 degrees from the last."""
    series = ct()
    for index in range(12):
        series.turn([index], 15 * index)
        series.files[index].ImagePositionPatient = series.files[0].ImagePositionPatient
    write(folder, series.files)
    return refuse("mixed-orientation", "duplicate-slice", "not-3d")


def _tilted(folder: Path, degrees: float) -> Series:
    """Lean the stack along the columns' direction, as a tilted gantry does."""
    affine = ct().affine
    affine[:3, 2] += np.tan(np.radians(degrees)) * CT_STEP_MM * np.array([0, 1, 0])
    series = ct(affine=affine)
    series.put(GantryDetectorTilt=str(degrees))
    write(folder, series.files)
    return series


@row("dicom")
def tilt_1_degree(folder: Path) -> Truth:
    """The gantry was tilted by 1 degree. A sheared affine states that faithfully; an upright one doesn't."""
    return refuse("tilted", also=[[_tilted(folder, 1).image()]])


@row("dicom")
def tilt_2_degrees(folder: Path) -> Truth:
    """The gantry was tilted by 2 degrees."""
    return refuse("tilted", also=[[_tilted(folder, 2).image()]])


@row("dicom")
def tilt_5_degrees(folder: Path) -> Truth:
    """The gantry was tilted by 5 degrees."""
    return refuse("tilted", also=[[_tilted(folder, 5).image()]])


@row("dicom")
def tilt_15_degrees(folder: Path) -> Truth:
    """The gantry was tilted by 15 degrees."""
    return refuse("tilted", also=[[_tilted(folder, 15).image()]])


@row("dicom")
def tilt_unsaid(folder: Path) -> Truth:
    """The gantry was tilted by 10 degrees, and GantryDetectorTilt is 0."""
    series = _tilted(folder, 10)
    series.put(GantryDetectorTilt="0")
    write(folder, series.files)
    return refuse("tilted", also=[[series.image()]])


@row("dicom")
def tilt_of_rounding(folder: Path) -> Truth:
    """The stack leans by 0.05 degrees, 0.02 mm in all: rounded positions."""
    return right(_tilted(folder, 0.05).image(tolerance_mm=0.02))


def _lying(folder: Path, **values: Any) -> Truth:
    """Write an upright series whose header says something else; positions and orientation hold."""
    series = ct()
    series.put(**values)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def lying_slice_thickness(folder: Path) -> Truth:
    """SliceThickness says 10 mm where the slices lie 2 mm apart: overlapping reconstructions."""
    return _lying(folder, SliceThickness="10")


@row("dicom")
def lying_spacing_between_slices(folder: Path) -> Truth:
    """SpacingBetweenSlices says 1.5 mm where the slices lie 2 mm apart."""
    return _lying(folder, SpacingBetweenSlices="1.5")


@row("dicom")
def lying_slice_location(folder: Path) -> Truth:
    """SliceLocation runs against the positions, and twice as fast."""
    series = ct()
    series.each("SliceLocation", lambda index: str(-6.0 * index))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def one_slice_location_for_all(folder: Path) -> Truth:
    """SliceLocation is 0 in every slice."""
    return _lying(folder, SliceLocation="0")


@row("dicom")
def lying_gantry_tilt(folder: Path) -> Truth:
    """GantryDetectorTilt says 15 degrees where the slices are stacked upright."""
    return _lying(folder, GantryDetectorTilt="15")


@row("dicom")
def lying_patient_position(folder: Path) -> Truth:
    """PatientPosition says feet first where orientation and positions are those of head first."""
    return _lying(folder, PatientPosition="FFS")


@row("dicom")
def anisotropic_pixels(folder: Path) -> Truth:
    """Pixels are 1.5 mm high and 0.75 mm wide."""
    series = ct(affine=changed(ct(), spacing=(0.75, 1.5, 3.0)))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def swapped_spacing_in_one(folder: Path) -> Truth:
    """One slice has its row and column spacing swapped, 0.75 x 1.5 mm instead of 1.5 x 0.75."""
    series = ct(affine=changed(ct(), spacing=(0.75, 1.5, 3.0)))
    series.put([MIDDLE], PixelSpacing=decimals([0.75, 1.5]))
    write(folder, series.files)
    return refuse("mixed-size")


@row("dicom")
def skewed_cosines(folder: Path) -> Truth:
    """Row and column directions are at 80 degrees to each other, which no scanner does."""
    return _refused_directions(folder, [1, 0, 0, np.cos(np.radians(80)), np.sin(np.radians(80)), 0])


@row("dicom")
def long_cosines(folder: Path) -> Truth:
    """Row and column directions are twice as long as unit vectors."""
    return _refused_directions(folder, [2, 0, 0, 0, 2, 0])


@row("dicom")
def zero_cosines(folder: Path) -> Truth:
    """Row and column directions are all zeros."""
    return _refused_directions(folder, [0] * 6)


@row("dicom")
def parallel_cosines(folder: Path) -> Truth:
    """Row and column run in the same direction."""
    return _refused_directions(folder, [1, 0, 0, 1, 0, 0])


def _refused_directions(folder: Path, cosines: list[float]) -> Truth:
    series = ct()
    series.put(ImageOrientationPatient=decimals(cosines))
    write(folder, series.files)
    return refuse("bad-affine", "missing-geometry")


def _without(folder: Path, keyword: str, *at: int) -> Truth:
    series = ct()
    series.put(at or None, **{keyword: None})
    write(folder, series.files)
    return refuse("missing-geometry")


@row("dicom")
def no_position_in_one(folder: Path) -> Truth:
    """ImagePositionPatient is absent from one slice."""
    return _without(folder, "ImagePositionPatient", MIDDLE)


@row("dicom")
def no_position_in_all(folder: Path) -> Truth:
    """ImagePositionPatient is absent."""
    return _without(folder, "ImagePositionPatient")


@row("dicom")
def no_orientation_in_one(folder: Path) -> Truth:
    """ImageOrientationPatient is absent from one slice."""
    return _without(folder, "ImageOrientationPatient", MIDDLE)


@row("dicom")
def no_orientation_in_all(folder: Path) -> Truth:
    """ImageOrientationPatient is absent."""
    return _without(folder, "ImageOrientationPatient")


@row("dicom")
def no_pixel_spacing(folder: Path) -> Truth:
    """PixelSpacing is absent."""
    return _without(folder, "PixelSpacing")


@row("dicom")
def detector_spacing_only(folder: Path) -> Truth:
    """PixelSpacing is absent, and ImagerPixelSpacing gives the pixels' size at the detector."""
    series = ct()
    series.put(PixelSpacing=None, ImagerPixelSpacing=decimals([0.2, 0.2]))
    write(folder, series.files)
    return refuse("missing-geometry")


@row("dicom")
def zero_pixel_spacing(folder: Path) -> Truth:
    """PixelSpacing is 0 x 0 mm."""
    series = ct()
    series.put(PixelSpacing=decimals([0, 0]))
    write(folder, series.files)
    return refuse("missing-geometry", "bad-affine")


@row("dicom")
def one_position_for_all(folder: Path) -> Truth:
    """ImagePositionPatient is the same in every slice; SliceLocation goes up."""
    series = ct()
    series.put(ImagePositionPatient=series.files[0].ImagePositionPatient)
    series.each("SliceLocation", lambda index: str(CT_STEP_MM * index))
    write(folder, series.files)
    return refuse("duplicate-slice")


@row("dicom")
def rounded_headers(folder: Path) -> Truth:
    """Every second slice has its pixel spacing and direction cosines rounded to six digits."""
    series = ct(affine=changed(ct(), directions=rotation(20, -35, 12)))
    for dataset in series.files[::2]:
        dataset.PixelSpacing = decimals(np.round(np.array(dataset.PixelSpacing, float), 6))
        dataset.ImageOrientationPatient = decimals(np.round(np.array(dataset.ImageOrientationPatient, float), 6))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def numbers_with_exponents(folder: Path) -> Truth:
    """Positions and cosines are written as -7.3730469E+01, and zeros as -0 or 1e-17."""
    series = ct()
    for dataset in series.files:
        dataset.ImagePositionPatient = [f"{float(value):.8E}" for value in dataset.ImagePositionPatient]
        dataset.ImageOrientationPatient = ["1.0E+00", "-0", "1e-17", "-1E-17", "1", "0.0"]
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def nan_position(folder: Path) -> Truth:
    """One slice's position is NaN."""
    series = ct()
    x, y, _ = series.files[MIDDLE].ImagePositionPatient
    series.files[MIDDLE].add(
        DataElement("ImagePositionPatient", "DS", [x, y, "NaN"], validation_mode=pydicom.config.IGNORE)
    )
    write(folder, series.files)
    return refuse("missing-geometry")


@row("dicom")
def comma_position(folder: Path) -> Truth:
    """Positions are written with decimal commas, which DICOM doesn't know."""
    series = ct()
    paths = write(folder, series.files)
    for path in paths:
        raw = path.read_bytes()
        at = raw.index(b"\x20\x00\x32\x00DS") + 8
        length = int.from_bytes(raw[at - 2 : at], "little")
        path.write_bytes(raw[:at] + raw[at : at + length].replace(b".", b",") + raw[at + length :])
    return refuse("missing-geometry")
