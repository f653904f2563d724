"""Several volumes under one SeriesInstanceUID, and what looks so but is one volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.geometry.series import CT_STEP_MM, Series, changed, ct, mr, other_values, rotation, series, uid, write
from benchmarks.geometry.truth import Truth, refuse, right, row

MIDDLE = 5


def _pair(source: str, first: dict[str, Any], second: dict[str, Any]) -> tuple[Series, Series]:
    """Two stacks at the same positions with other pixels, told apart by the elements given, if any."""
    one = series(source)
    two = series(source, stored=other_values(one), part="b", first_number=13)
    one.put(**first)
    two.put(**second)
    return one, two


def _both(folder: Path, stacks: tuple[Series, Series], *, interleaved: bool = False) -> Truth:
    """Write two stacks, as one file after the other or in turns; both are volumes."""
    files = [dataset for stack in stacks for dataset in stack.files]
    if interleaved:
        files = [dataset for pair in zip(*(stack.files for stack in stacks), strict=True) for dataset in pair]
        for number, dataset in enumerate(files, start=1):
            dataset.InstanceNumber = number
    write(folder, files)
    return right(*(stack.image() for stack in stacks))


@row("dicom")
def time_points_with_identifier(folder: Path) -> Truth:
    """Two time points, told apart by TemporalPositionIdentifier."""
    return _both(folder, _pair("mr", {"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}))


@row("dicom")
def time_points_interleaved(folder: Path) -> Truth:
    """Two time points with TemporalPositionIdentifier, numbered in turns at each position."""
    pair = _pair("mr", {"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2})
    return _both(folder, pair, interleaved=True)


@row("dicom")
def time_points_without_identifier(folder: Path) -> Truth:
    """Two time points, and nothing but InstanceNumber differs between them, which goes on volume by volume."""
    return _both(folder, _pair("mr", {}, {}))


@row("dicom")
def time_points_numbered_at_each_position(folder: Path) -> Truth:
    """Two time points, and nothing but InstanceNumber differs between them, which goes on position by position."""
    return _both(folder, _pair("mr", {}, {}), interleaved=True)


@row("dicom")
def time_points_numbered_at_random(folder: Path) -> Truth:
    """Two time points, and InstanceNumber goes on neither volume by volume nor position by position."""
    pair = _pair("mr", {}, {})
    files = [dataset for stack in pair for dataset in stack.files]
    for number, dataset in enumerate(files):
        dataset.InstanceNumber = number * 7 % len(files) + 1
    write(folder, files)
    return refuse("duplicate-slice")


@row("dicom")
def time_points_unnumbered(folder: Path) -> Truth:
    """Two time points with nothing at all to tell them apart."""
    one, two = _pair("mr", {"InstanceNumber": None}, {"InstanceNumber": None})
    files = [dataset for pair in zip(one.files, two.files, strict=True) for dataset in pair]
    write(folder, sorted(files, key=lambda dataset: str(dataset.SOPInstanceUID)))
    return refuse("duplicate-slice")


@row("dicom")
def time_point_lacks_a_slice(folder: Path) -> Truth:
    """Two time points with identifiers; the second lacks a slice in the middle, the first is a volume."""
    one, two = _pair("mr", {"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2})
    write(folder, [*one.files, *two.without(MIDDLE)])
    return right(one.image(), beside=["missing-slice"])


@row("dicom")
def two_echoes(folder: Path) -> Truth:
    """Two echoes, told apart by EchoNumbers and EchoTime."""
    return _both(folder, _pair("mr", {"EchoNumbers": 1, "EchoTime": "4.6"}, {"EchoNumbers": 2, "EchoTime": "9.2"}))


@row("dicom")
def two_echo_times(folder: Path) -> Truth:
    """Two echoes, told apart by EchoTime alone, in turns at each position."""
    return _both(folder, _pair("mr", {"EchoTime": "4.6"}, {"EchoTime": "9.2"}), interleaved=True)


@row("dicom")
def b_values(folder: Path) -> Truth:
    """Diffusion: b = 0 and b = 1000."""
    return _both(folder, _pair("mr", {"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}))


@row("dicom")
def diffusion_directions(folder: Path) -> Truth:
    """Diffusion: two directions of one b-value."""
    first: dict[str, Any] = {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": [1.0, 0.0, 0.0]}
    second: dict[str, Any] = {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": [0.0, 1.0, 0.0]}
    return _both(folder, _pair("mr", first, second))


@row("dicom")
def magnitude_and_phase(folder: Path) -> Truth:
    """Magnitude and phase images, told apart by ImageType."""
    return _both(
        folder,
        _pair(
            "mr", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}
        ),
    )


@row("dicom")
def halves_of_magnitude_and_phase(folder: Path) -> Truth:
    """The lower half of a magnitude image and the upper half of its phase image: together an even stack."""
    one, two = _pair(
        "mr",
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
    )
    write(folder, [*one.files[:6], *two.files[6:]])
    codes = "missing-slice", "duplicate-slice", "varying-spacing"
    return refuse(*codes, also=[[one.image(slice(0, 6)), two.image(slice(6, 12))]])


@row("dicom")
def halves_of_two_kernels(folder: Path) -> Truth:
    """The lower half of a soft reconstruction and the upper half of a sharp one: together an even stack."""
    one, two = _pair("ct", {"ConvolutionKernel": "Br38f"}, {"ConvolutionKernel": "Br64f"})
    write(folder, [*one.files[:6], *two.files[6:]])
    codes = "missing-slice", "duplicate-slice", "varying-spacing"
    return refuse(*codes, also=[[one.image(slice(0, 6)), two.image(slice(6, 12))]])


@row("dicom")
def slices_of_two_voltages(folder: Path) -> Truth:
    """Even slices of one tube voltage and odd slices of another: together an even stack."""
    one, two = _pair("ct", {"KVP": "80"}, {"KVP": "140"})
    write(folder, [*one.files[::2], *two.files[1::2]])
    codes = "missing-slice", "duplicate-slice", "varying-spacing"
    return refuse(*codes, also=[[one.image(slice(0, 12, 2)), two.image(slice(1, 12, 2))]])


@row("dicom")
def stray_echo_in_a_gap(folder: Path) -> Truth:
    """One slice of the first echo is absent, and the second echo's slice is there in its place."""
    one, two = _pair("mr", {"EchoTime": "4.6"}, {"EchoTime": "9.2"})
    write(folder, [*one.without(MIDDLE), two.files[MIDDLE]])
    return refuse("missing-slice")


@row("dicom")
def time_points_slightly_apart(folder: Path) -> Truth:
    """Two time points with TemporalPositionIdentifier, the second 0.02 mm above the first."""
    one, two = _pair("mr", {"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2})
    two.affine[:3, 3] += one.normal * 0.02
    two.move(range(12), one.normal * 0.02)
    return _both(folder, (one, two))


@row("dicom")
def two_tube_voltages(folder: Path) -> Truth:
    """Dual-energy CT: two volumes at the same positions, told apart by KVP."""
    return _both(folder, _pair("ct", {"KVP": "80"}, {"KVP": "140"}))


@row("dicom")
def overlapping_slabs(folder: Path) -> Truth:
    """Two acquisitions that overlap by three slices, as angiography slabs do."""
    one = mr()
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 9
    two = mr(stored=other_values(one), affine=affine, part="b", first_number=13)
    one.put(AcquisitionNumber=1)
    two.put(AcquisitionNumber=2)
    return _both(folder, (one, two))


@row("dicom")
def mosaic(folder: Path) -> Truth:
    """Mosaics without their CSA header: each file shows all slices of a time point side by side in one image."""
    stack = mr()
    stack.put(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    stack.put(ImagePositionPatient=stack.files[0].ImagePositionPatient)
    write(folder, stack.files)
    return refuse("missing-geometry", "unsupported", "duplicate-slice", "not-3d")


@row("dicom")
def trigger_times(folder: Path) -> Truth:
    """Three phases of the heart, told apart by TriggerTime."""
    first = mr()
    stacks = [first, *(mr(stored=first.stored + 100 * part, part=str(part)) for part in (1, 2))]
    for part, stack in enumerate(stacks):
        stack.put(TriggerTime=str(250.0 * part))
    files = [dataset for triple in zip(*(stack.files for stack in stacks), strict=True) for dataset in triple]
    for number, dataset in enumerate(files, start=1):
        dataset.InstanceNumber = number
    write(folder, files)
    return right(*(stack.image() for stack in stacks))


@row("dicom")
def trigger_time_of_each_slice(folder: Path) -> Truth:
    """One volume whose slices each have a TriggerTime of their own."""
    return _one(folder, "TriggerTime", lambda index: str(17.5 * index))


def _one(folder: Path, keyword: str, value: Any) -> Truth:
    """Write one volume in which an element differs from slice to slice."""
    stack = mr()
    stack.each(keyword, value)
    write(folder, stack.files)
    return right(stack.image())


@row("dicom")
def acquisition_of_each_slice(folder: Path) -> Truth:
    """One volume whose slices each have an AcquisitionNumber of their own."""
    return _one(folder, "AcquisitionNumber", lambda index: index + 1)


@row("dicom")
def acquisitions_interleaved(folder: Path) -> Truth:
    """One volume whose even slices are acquisition 1 and whose odd ones are acquisition 2."""
    return _one(folder, "AcquisitionNumber", lambda index: index % 2 + 1)


@row("dicom")
def acquisitions_that_join(folder: Path) -> Truth:
    """One volume whose lower half is acquisition 1 and whose upper half, right on it, acquisition 2."""
    return _one(folder, "AcquisitionNumber", lambda index: index // 6 + 1)


@row("dicom")
def acquisition_times(folder: Path) -> Truth:
    """One volume whose slices each have an AcquisitionTime and a ContentTime of their own."""
    stack = mr()
    stack.each("AcquisitionTime", lambda index: f"1200{index:02d}")
    stack.each("ContentTime", lambda index: f"1300{11 - index:02d}")
    write(folder, stack.files)
    return right(stack.image())


@row("dicom")
def two_acquisitions(folder: Path) -> Truth:
    """Two acquisitions of the same positions, before and after contrast."""
    return _both(folder, _pair("ct", {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}))


def _apart(gap_mm: float) -> tuple[Series, Series]:
    """Two stacks, the second `gap_mm` above the first."""
    one = ct()
    affine = one.affine.copy()
    affine[:3, 3] += one.normal * (11 * CT_STEP_MM + gap_mm)
    return one, ct(stored=other_values(one), affine=affine, part="b", first_number=13)


@row("dicom")
def two_acquisitions_with_a_gap(folder: Path) -> Truth:
    """Two acquisitions with 20 mm between them."""
    one, two = _apart(20)
    one.put(AcquisitionNumber=1)
    two.put(AcquisitionNumber=2)
    return _both(folder, (one, two))


@row("dicom")
def two_blocks_with_a_gap(folder: Path) -> Truth:
    """Two blocks of slices with 20 mm between them, of one acquisition as far as the headers say."""
    one, two = _apart(20)
    _both(folder, (one, two))
    return refuse("missing-slice", "varying-spacing", also=[[one.image(), two.image()]])


@row("dicom")
def two_matrices(folder: Path) -> Truth:
    """Two whole volumes at the same positions, one of 48 x 40 pixels, the other of 24 x 20 twice as large."""
    one = ct()
    affine = one.affine.copy()
    affine[:3, :2] *= 2
    two = ct(stored=other_values(one)[::2, ::2], affine=affine, part="b", first_number=13)
    return _both(folder, (one, two))


@row("dicom")
def two_pixel_spacings(folder: Path) -> Truth:
    """Two whole volumes of the same matrix, reconstructed with different fields of view."""
    one = ct()
    two = ct(stored=other_values(one), affine=changed(one, spacing=(0.5, 0.5, CT_STEP_MM)), part="b", first_number=13)
    return _both(folder, (one, two))


@row("dicom")
def mixed_matrix_in_one(folder: Path) -> Truth:
    """One slice in the middle has fewer rows than the others."""
    stack = ct()
    small = ct(stored=stack.stored[:, :30])
    write(folder, [*stack.without(MIDDLE), small.files[MIDDLE]])
    return refuse("mixed-size")


@row("dicom")
def two_orientations(folder: Path) -> Truth:
    """An axial and a sagittal volume."""
    one = mr()
    sagittal = np.transpose([[0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    two = mr(stored=other_values(one), affine=changed(one, directions=sagittal), part="b", first_number=13)
    return _both(folder, (one, two))


@row("dicom")
def three_plane_survey(folder: Path) -> Truth:
    """A survey of five axial, five coronal and five sagittal slices, not called a localizer."""
    planes = (
        np.eye(3),
        np.transpose([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        np.transpose([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
    )
    stacks = [mr(affine=changed(mr(), directions=plane), part=str(part)) for part, plane in enumerate(planes)]
    files = [dataset for stack in stacks for dataset in stack.files[:5]]
    for number, dataset in enumerate(files, start=1):
        dataset.InstanceNumber = number
    write(folder, files)
    return right(*(stack.image(slice(0, 5)) for stack in stacks))


@row("dicom")
def three_single_planes(folder: Path) -> Truth:
    """One axial, one coronal and one sagittal slice: no volume."""
    planes = (
        np.eye(3),
        np.transpose([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        np.transpose([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
    )
    stacks = [mr(affine=changed(mr(), directions=plane), part=str(part)) for part, plane in enumerate(planes)]
    write(folder, [stack.files[0] for stack in stacks])
    return refuse("not-3d", "mixed-orientation", also=[[stack.image(slice(0, 1)) for stack in stacks]])


@row("dicom")
def disc_stacks(folder: Path) -> Truth:
    """Spine discs: three stacks of four slices, each at an angle of its own, as scanners file them."""
    stacks = []
    for part, degrees in enumerate((-12, 0, 14)):
        affine = changed(mr(), directions=rotation(degrees, 0, 0), spacing=(1, 1, 4))
        affine[:3, 3] += [0, 0, 35 * part]
        stacks.append(mr(affine=affine, part=str(part), first_number=1 + 4 * part))
    write(folder, [dataset for stack in stacks for dataset in stack.files[:4]])
    return right(*(stack.image(slice(0, 4)) for stack in stacks))


@row("dicom")
def two_frames_of_reference(folder: Path) -> Truth:
    """Two whole volumes in different frames of reference: the patient was moved between them."""
    one, two = _pair("ct", {}, {"FrameOfReferenceUID": uid("moved")})
    return _both(folder, (one, two))


@row("dicom")
def one_slice_of_another_frame(folder: Path) -> Truth:
    """One slice in the middle is in another frame of reference: its position can't be compared."""
    stack = ct()
    stack.put([MIDDLE], FrameOfReferenceUID=uid("moved"))
    write(folder, stack.files)
    return refuse("mixed-frame")


def _patients(folder: Path, offset_mm: float, frame: str) -> Truth:
    """Two patients' volumes to which an anonymiser gave the same study, series and perhaps frame UIDs."""
    one = ct()
    affine = one.affine.copy()
    affine[:3, 3] += one.normal * offset_mm
    two = ct(stored=other_values(one), affine=affine, part="b")
    two.put(PatientID="SOMEBODY-ELSE", PatientName="Somebody^Else")
    if frame:
        two.put(FrameOfReferenceUID=uid(frame))
    write(folder, one.files)
    write(folder, two.files, name=lambda index: f"XX{index:04d}.dcm")
    codes = "duplicate-slice", "varying-spacing", "missing-slice", "mixed-frame"
    return refuse(*codes, also=[[one.image(), two.image()]])


@row("dicom")
def patients_with_one_series_uid(folder: Path) -> Truth:
    """Two patients' scans at the same positions under one SeriesInstanceUID; PatientID differs."""
    return _patients(folder, 0, "")


@row("dicom")
def patients_in_two_frames(folder: Path) -> Truth:
    """Two patients' scans under one SeriesInstanceUID, in two frames of reference."""
    return _patients(folder, 0, "other patient")


@row("dicom")
def patients_interleaved(folder: Path) -> Truth:
    """Two patients' scans under one SeriesInstanceUID and frame, offset by half a slice: together an even stack."""
    return _patients(folder, CT_STEP_MM / 2, "")


@row("dicom")
def localizer_in_series(folder: Path) -> Truth:
    """A scout whose ImageType says LOCALIZER is among the slices."""
    stack, scout = ct(), _scout()
    scout.put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(folder, [scout.files[0], *stack.files])
    return right(stack.image())


@row("dicom")
def scout_in_series(folder: Path) -> Truth:
    """A perpendicular scout that isn't called one is among the slices."""
    stack = ct()
    write(folder, [_scout().files[0], *stack.files])
    return right(stack.image(), beside=["not-3d"])


def _scout() -> Series:
    """A coronal slice through the CT's middle, of another matrix."""
    stack = ct()
    affine = changed(stack, directions=np.transpose([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), spacing=(1.5, 1.5, 3))
    affine[:3, 3] += [0, 20, 40]
    return ct(stored=other_values(stack)[:36], affine=affine, part="scout", first_number=0)


@row("dicom")
def secondary_capture_in_series(folder: Path) -> Truth:
    """A screenshot (secondary capture, no geometry) is among the slices."""
    stack = ct()
    write(folder, stack.files)
    write(folder, [secondary_capture()], name=lambda _: "SC0001.dcm")
    return right(stack.image())


def secondary_capture() -> Any:
    """A colour screenshot of the CT series."""
    shot = ct(part="shot").files[0]
    shot.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"):
        shot.pop(keyword)
    shot.Modality, shot.InstanceNumber = "OT", 99
    shot.Rows, shot.Columns, shot.SamplesPerPixel, shot.PhotometricInterpretation = 20, 20, 3, "RGB"
    shot.PlanarConfiguration, shot.BitsAllocated, shot.BitsStored, shot.HighBit = 0, 8, 8, 7
    shot.PixelData = bytes(range(200)) * 6
    shot["PixelData"].VR = "OB"
    shot.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return shot


@row("dicom")
def derived_secondary_series(folder: Path) -> Truth:
    """A reformatted series: ImageType DERIVED, SECONDARY, with a geometry of its own."""
    stack = ct(affine=changed(ct(), directions=np.transpose([[1, 0, 0], [0, 0, -1], [0, 1, 0]])))
    stack.put(ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    write(folder, stack.files)
    return right(stack.image())


@row("dicom")
def image_type_of_ends(folder: Path) -> Truth:
    """One volume whose first slices carry another ImageType than the rest."""
    stack = ct()
    stack.put(range(3), ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    write(folder, stack.files)
    return right(stack.image())


@row("dicom")
def projection_in_series(folder: Path) -> Truth:
    """Another image of the middle slice (a projection, by its ImageType) is among the slices."""
    stack = ct()
    extra = ct(stored=other_values(stack), part="b", first_number=13)
    extra.put(ImageType=["DERIVED", "SECONDARY", "PROJECTION IMAGE"])
    write(folder, [*stack.files, extra.files[MIDDLE]])
    return right(stack.image(), beside=["not-3d"])


@row("dicom")
def mixed_slice_thickness(folder: Path) -> Truth:
    """One even volume in which SliceThickness differs from slice to slice."""
    stack = ct()
    stack.each("SliceThickness", lambda index: str(3 + index % 2))
    write(folder, stack.files)
    return right(stack.image())
