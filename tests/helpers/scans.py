"""DICOM series for the tests: real ones from the shared data, small ones made here. Read with pydicom alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from volseg.geometry import Geometry
from volseg.volume import Code, DicomSource, Instance, Label, LabelVolume, Source

HIPPOCAMPUS = Code(value="5366008", scheme="SCT", meaning="Hippocampus")
LABELS = (
    Label(
        value=1,
        name="anterior hippocampus",
        colour=(230, 60, 50),
        code=HIPPOCAMPUS,
        modifier=Code(value="255549009", scheme="SCT", meaning="Anterior"),
    ),
    Label(
        value=2,
        name="posterior hippocampus",
        colour=(40, 120, 250),
        code=HIPPOCAMPUS,
        modifier=Code(value="255551008", scheme="SCT", meaning="Posterior"),
    ),
)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def position_ras(header: Dataset, column: float, row: float) -> npt.NDArray[np.float64]:
    """Where a pixel is, worked out by hand from the header."""
    x = [float(value) for value in header.ImageOrientationPatient[:3]]
    y = [float(value) for value in header.ImageOrientationPatient[3:]]
    down, across = (float(value) for value in header.PixelSpacing)
    p = [float(header.ImagePositionPatient[n]) + x[n] * across * column + y[n] * down * row for n in range(3)]
    return np.array([-p[0], -p[1], p[2]])


def geometry_of(headers: Sequence[Dataset]) -> Geometry:
    """Grid of the headers, in their order, from the positions of four pixels."""
    origin = position_ras(headers[0], 0, 0)
    affine = np.eye(4)
    affine[:3, 0] = position_ras(headers[0], 1, 0) - origin
    affine[:3, 1] = position_ras(headers[0], 0, 1) - origin
    affine[:3, 2] = (position_ras(headers[-1], 0, 0) - origin) / (len(headers) - 1)
    affine[:3, 3] = origin
    return Geometry((headers[0].Columns, headers[0].Rows, len(headers)), affine)


def along_normal(header: Dataset) -> float:
    x, y = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return float(np.cross(x, y) @ np.array(header.ImagePositionPatient, dtype=float))


def scan_from(paths: Iterable[Path], identity: bool = True) -> tuple[Geometry, Source]:
    """Grid and source of a series, slices ascending along row x column."""
    headers = sorted((pydicom.dcmread(path, stop_before_pixels=True) for path in paths), key=along_normal)
    first = headers[0]
    dicom = DicomSource(
        study_uid=first.StudyInstanceUID,
        series_uid=first.SeriesInstanceUID,
        frame_of_reference_uid=first.FrameOfReferenceUID,
        instances=tuple(
            Instance(path=Path(str(h.filename)), sop_class_uid=h.SOPClassUID, sop_instance_uid=h.SOPInstanceUID)
            for h in headers
        ),
        identity=identity,
    )
    return geometry_of(headers), Source(kind="dicom", name="case", modality=first.Modality, dicom=dicom)


def blobs(geometry: Geometry, source: Source, labels: tuple[Label, ...] = LABELS) -> LabelVolume:
    """A mask that no flip or transposition maps to itself, with empty slices and a label that skips one."""
    array = np.zeros(geometry.shape, dtype=np.uint8)
    i, j, k = geometry.shape
    array[i // 3 : i // 2, j // 4 : j // 2, 1 : k // 2 + 1] = labels[0].value
    array[2, 1, 0] = labels[-1].value
    array[i // 2 : i - 2, j // 2 : j - 1, k // 2] = labels[-1].value
    array[i - 2, 1, k - 1] = labels[-1].value
    return LabelVolume(array, geometry, labels, source)


def write_series(
    folder: Path,
    shape: tuple[int, int, int] = (5, 7, 4),
    orientation: Sequence[float] = OBLIQUE,
    without: Sequence[str] = (),
    **changes: object,
) -> list[Path]:
    """Write a small MR series, its files named against the order of its slices."""
    columns, rows, slices = shape
    x, y = np.array(orientation).reshape(2, 3)
    normal = np.cross(x, y)
    series, study, frame = (generate_uid(entropy_srcs=[str(folder), name]) for name in ("series", "study", "frame"))
    paths = []
    for k in range(slices):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        header.SOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(k)])
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, frame
        header.Modality = "MR"
        header.PatientName, header.PatientID = "Test^Person", "T1"
        header.PatientBirthDate, header.PatientSex = "19700102", "O"
        header.StudyDate, header.StudyTime, header.StudyID = "20240229", "101112", "7"
        header.AccessionNumber, header.ReferringPhysicianName = "A1", ""
        header.SeriesNumber, header.InstanceNumber = 3, k + 1
        header.ImageOrientationPatient = [float(value) for value in orientation]
        header.ImagePositionPatient = [round(float(v), 6) for v in np.array([10.0, -20.0, 30.0]) + 2.5 * k * normal]
        header.PixelSpacing, header.SliceThickness = [1.5, 0.75], 2.0
        header.Columns, header.Rows = columns, rows
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
        header.PixelData = np.zeros((rows, columns), dtype=np.uint16).tobytes()
        for keyword in without:
            delattr(header, keyword)
        for keyword, value in changes.items():
            setattr(header, keyword, value)
        paths.append(folder / f"{slices - k}.dcm")
        header.save_as(paths[-1], enforce_file_format=True)
    return paths


def nested(geometry: Geometry, source: Source, labels: tuple[Label, ...] = LABELS) -> LabelVolume:
    """`blobs`, but the first label goes on below the second."""
    mask = blobs(geometry, source, labels)
    first, second = labels
    whole = np.where(mask.array == 0, 0, first.value).astype(np.uint8)
    whole[2, 1, 0] = 0
    above = np.where(mask.array == second.value, second.value, 0).astype(np.uint8)
    return replace(mask, layers=(whole, above))
