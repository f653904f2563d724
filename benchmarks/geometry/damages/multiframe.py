"""Enhanced MR and CT: one file with many frames, whose geometry lies in functional groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000Lossless

from benchmarks.geometry.series import (
    CT_STEP_MM,
    Series,
    changed,
    compressed,
    ct,
    encode,
    mr,
    other_values,
    rotation,
    set_encapsulated,
    uid,
    write,
)
from benchmarks.geometry.truth import Truth, refuse, right, row

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
#: A frame: its slice of a series, the stack that it is in, and the time point.
Frame = tuple[Series, int, int, int]


def _item(**values: object) -> Items:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return Items([dataset])


def _frame(frame: Frame) -> Dataset:
    """Functional groups of one frame."""
    series, index, stack, time = frame
    source = series.files[index]
    group = Dataset()
    group.FrameContentSequence = _item(
        StackID=str(stack),
        InStackPositionNumber=index + 1,
        TemporalPositionIndex=time,
        DimensionIndexValues=[stack, index + 1, time],
    )
    group.PlanePositionSequence = _item(ImagePositionPatient=source.ImagePositionPatient)
    group.PlaneOrientationSequence = _item(ImageOrientationPatient=source.ImageOrientationPatient)
    group.PixelMeasuresSequence = _item(PixelSpacing=source.PixelSpacing, SliceThickness=source.SliceThickness)
    group.PixelValueTransformationSequence = _item(
        RescaleIntercept=str(series.intercept), RescaleSlope="1", RescaleType="US"
    )
    return group


def _enhanced(frames: Sequence[Frame], sop_class: str = ENHANCED_MR) -> Dataset:
    """One object that holds the frames in the order given."""
    dataset = frames[0][0].files[0]
    pixels = np.stack([series.stored[:, :, index].T for series, index, _, _ in frames])
    groups = [_frame(frame) for frame in frames]
    for keyword in (
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
        *("RescaleIntercept", "RescaleSlope", "RescaleType", "EchoTime", "EchoTrainLength"),
    ):
        dataset.pop(keyword, None)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid("enhanced", sop_class)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(frames)
    organisation = uid("dimensions")
    dataset.DimensionOrganizationSequence = _item(DimensionOrganizationUID=organisation)
    pointers = ((0x00209056, 0x00209111), (0x00209057, 0x00209111), (0x00209128, 0x00209111))
    dataset.DimensionIndexSequence = Items(
        [
            _item(DimensionOrganizationUID=organisation, DimensionIndexPointer=pointer, FunctionalGroupPointer=group)[0]
            for pointer, group in pointers
        ]
    )
    dataset.SharedFunctionalGroupsSequence = Items([Dataset()])
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _frames(series: Series, order: Sequence[int], stack: int = 1, time: int = 1) -> list[Frame]:
    return [(series, index, stack, time) for index in order]


@row("dicom")
def enhanced_mr(folder: Path) -> Truth:
    """An Enhanced MR object of 12 frames in order."""
    series = mr()
    write(folder, [_enhanced(_frames(series, range(12)))])
    return right(series.image())


@row("dicom")
def enhanced_ct(folder: Path) -> Truth:
    """An Enhanced CT object with a rescale intercept."""
    series = ct()
    write(folder, [_enhanced(_frames(series, range(12)), ENHANCED_CT)])
    return right(series.image())


@row("dicom")
def enhanced_oblique_anisotropic(folder: Path) -> Truth:
    """An Enhanced MR object whose frames are oblique and whose pixels are 1.5 mm high and 0.75 mm wide."""
    series = mr(affine=changed(mr(), directions=rotation(20, -35, 12), spacing=(0.75, 1.5, 4)))
    write(folder, [_enhanced(_frames(series, range(12)))])
    return right(series.image())


@row("dicom")
def enhanced_shuffled(folder: Path) -> Truth:
    """An Enhanced MR object whose frames are in the order of acquisition, odd ones first."""
    series = mr()
    write(folder, [_enhanced(_frames(series, [*range(0, 12, 2), *range(1, 12, 2)]))])
    return right(series.image())


@row("dicom")
def enhanced_reversed(folder: Path) -> Truth:
    """An Enhanced MR object whose frames run from the top down."""
    series = mr()
    write(folder, [_enhanced(_frames(series, range(11, -1, -1)))])
    return right(series.image())


@row("dicom")
def enhanced_missing_frame(folder: Path) -> Truth:
    """An Enhanced MR object in which a frame in the middle is absent."""
    write(folder, [_enhanced(_frames(mr(), [index for index in range(12) if index != 5]))])
    return refuse("missing-slice")


@row("dicom")
def enhanced_two_stacks(folder: Path) -> Truth:
    """An Enhanced MR object with an axial and a sagittal stack."""
    one = mr()
    sagittal = np.transpose([[0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    two = mr(stored=other_values(one), affine=changed(one, directions=sagittal))
    write(folder, [_enhanced([*_frames(one, range(12)), *_frames(two, range(12), stack=2)])])
    return right(one.image(), two.image())


@row("dicom")
def enhanced_two_parallel_stacks(folder: Path) -> Truth:
    """An Enhanced MR object with two stacks that face the same way, 30 mm apart."""
    one = mr()
    affine = one.affine.copy()
    affine[:3, 3] += one.normal * 41.5
    two = mr(stored=other_values(one), affine=affine)
    write(folder, [_enhanced([*_frames(one, range(12)), *_frames(two, range(12), stack=2)])])
    return right(one.image(), two.image())


@row("dicom")
def enhanced_two_time_points(folder: Path) -> Truth:
    """An Enhanced MR object with two time points by TemporalPositionIndex, in turns at each position."""
    one = mr()
    two = mr(stored=other_values(one))
    pairs = zip(_frames(one, range(12)), _frames(two, range(12), time=2), strict=True)
    write(folder, [_enhanced([frame for pair in pairs for frame in pair])])
    return right(one.image(), two.image())


@row("dicom")
def enhanced_two_echoes(folder: Path) -> Truth:
    """An Enhanced MR object with two echoes, by EffectiveEchoTime."""
    one = mr()
    two = mr(stored=other_values(one))
    dataset = _enhanced([*_frames(one, range(12)), *_frames(two, range(12))])
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.MREchoSequence = _item(EffectiveEchoTime=4.6 if index < 12 else 9.2)
    write(folder, [dataset])
    return right(one.image(), two.image())


@row("dicom")
def enhanced_tilted(folder: Path) -> Truth:
    """An Enhanced CT object whose gantry was tilted by 5 degrees."""
    affine = ct().affine
    affine[:3, 2] += np.tan(np.radians(5)) * CT_STEP_MM * np.array([0, 1, 0])
    series = ct(affine=affine)
    write(folder, [_enhanced(_frames(series, range(12)), ENHANCED_CT)])
    return refuse("tilted", also=[[series.image()]])


@row("dicom")
def enhanced_without_positions(folder: Path) -> Truth:
    """An Enhanced MR object whose frames have no position."""
    dataset = _enhanced(_frames(mr(), range(12)))
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    write(folder, [dataset])
    return refuse("missing-geometry")


@row("dicom")
def enhanced_truncated(folder: Path) -> Truth:
    """An Enhanced MR object that is cut short in its last frames."""
    (path,) = write(folder, [_enhanced(_frames(mr(), range(12)))])
    path.write_bytes(path.read_bytes()[:-5000])
    return refuse("unreadable")


@row("dicom")
def enhanced_shared_groups(folder: Path) -> Truth:
    """An Enhanced MR object that states orientation, spacing and rescale once, for all frames."""
    series = mr()
    series.intercept = -12.0
    dataset = _enhanced(_frames(series, range(12)))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"):
            setattr(shared, keyword, group[keyword].value)
            del group[keyword]
    write(folder, [dataset])
    return right(series.image())


@row("dicom")
def enhanced_slope_per_frame(folder: Path) -> Truth:
    """An Enhanced MR object whose frames each have a slope of their own."""
    series = mr()
    slopes = 0.5 + 0.125 * np.arange(12)
    dataset = _enhanced(_frames(series, range(12)))
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PixelValueTransformationSequence[0].RescaleSlope = str(slopes[index])
    write(folder, [dataset])
    return right(replace(series.image(), values=series.stored * slopes))


@row("dicom")
def enhanced_jpeg_2000(folder: Path) -> Truth:
    """An Enhanced CT object whose frames are compressed (JPEG 2000 lossless) and shuffled."""
    series = ct()
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    dataset = _enhanced(_frames(series, order), ENHANCED_CT)
    for frame in series.files[1:]:
        encode(frame, JPEG2000Lossless)
    first = ct().files[0]
    encode(first, JPEG2000Lossless)
    frames = [first, *series.files[1:]]
    set_encapsulated(dataset, [compressed(frames[index]) for index in order])
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    write(folder, [dataset])
    return right(series.image())


@row("dicom")
def enhanced_over_two_files(folder: Path) -> Truth:
    """Two Enhanced MR objects of one series, a time point in each."""
    one = mr()
    two = mr(stored=other_values(one))
    first, second = _enhanced(_frames(one, range(12))), _enhanced(_frames(two, range(12), time=2))
    second.SOPInstanceUID, second.InstanceNumber = uid("enhanced", "second"), 2
    write(folder, [first, second])
    return right(one.image(), two.image())
