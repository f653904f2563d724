"""Synthetic DICOM series for tests: real files, of any shape, grid and encoding, written with pydicom.

Arrays are [column, row, slice]; affines are LPS, as DICOM's numbers are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

Array = npt.NDArray[Any]
#: What a test changes in one slice before it is written: the data set and the slice's index.
Edit = Callable[[Dataset, int], None]


def voxels(shape: tuple[int, int, int] = (5, 4, 3), dtype: Any = np.int16) -> Array:
    """Values that are all different, some negative where the type has such."""
    start = -7 if np.issubdtype(dtype, np.signedinteger) else 0
    return np.arange(start, start + np.prod(shape), dtype=dtype).reshape(shape)


def lps_affine(
    spacing_mm: tuple[float, float, float] = (0.7, 0.9, 2.5),
    origin: tuple[float, float, float] = (-30.0, 12.0, 101.5),
    directions: npt.ArrayLike | None = None,
) -> Array:
    """Affine of the array [column, row, slice]; `directions` are unit vectors as columns, axial unless given."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(np.eye(3) if directions is None else directions) * np.array(spacing_mm)
    affine[:3, 3] = origin
    return affine


def rotation(x_degrees: float, y_degrees: float, z_degrees: float) -> Array:
    """Rotation about x, then y, then z."""
    x, y, z = np.radians([x_degrees, y_degrees, z_degrees])
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.array(about_z) @ np.array(about_y) @ np.array(about_x)


def sheared(affine: Array, degrees: float) -> Array:
    """Lean the stack of slices along the rows' direction, as a tilted gantry does."""
    leaning = affine.copy()
    step = np.linalg.norm(affine[:3, 2])
    leaning[:3, 2] += np.tan(np.radians(degrees)) * step * affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    return leaning


def image(array: Array, affine: Array, index: int, *, modality: str = "MR", seed: str = "series") -> Dataset:
    """Data set of one slice; the UIDs follow from `seed` and `index`."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[seed, str(index)])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[seed])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = modality, seed, 3
    dataset.PatientName, dataset.PatientID = "Nobody^Known", "ID-17"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.StudyID = dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.Manufacturer = ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = [round(float(value), 9) for value in affine[:3] @ [0, 0, index, 1]]
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    directions = affine[:3, :2] / spacing
    dataset.ImageOrientationPatient = [round(float(value), 9) for value in directions.T.ravel()]
    dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    dataset.SliceThickness = 99.0  # nothing may be made of it
    dataset.Columns, dataset.Rows = array.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = array.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(array.dtype, np.signedinteger))
    dataset.PixelData = np.ascontiguousarray(array[:, :, index].T).tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    return dataset


def encode(dataset: Dataset, pixels: Array, syntax: UID) -> None:
    """Set the transfer syntax, and compress `pixels` [row, column] where it asks for that."""
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == JPEG2000Lossless:
        from openjpeg.utils import encode_array

        code = encode_array(np.ascontiguousarray(pixels), bits_stored=dataset.BitsStored, photometric_interpretation=2)
        dataset.PixelData = encapsulate([bytes(code)])
        dataset["PixelData"].is_undefined_length = True
    elif syntax.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        # Named, because gdcm aborts the whole process on some arrays.
        plugin = "pydicom" if syntax == RLELossless else "pyjpegls"
        dataset.compress(syntax, np.ascontiguousarray(pixels), encoding_plugin=plugin, generate_instance_uid=False)


def write_series(
    folder: Path,
    array: Array | None = None,
    affine: Array | None = None,
    *,
    modality: str = "MR",
    seed: str = "series",
    syntax: UID = ExplicitVRLittleEndian,
    edit: Edit | None = None,
    name: Callable[[int], str] = lambda index: f"IM{index:03d}.dcm",
) -> list[Path]:
    """Write one file a slice.

    Parameters
    ----------
    array
        [column, row, slice], integers; `voxels()` unless given.
    affine
        LPS; `lps_affine()` unless given.
    edit
        Changes each data set before it is written.
    name
        File name of a slice.

    Returns
    -------
    list[Path]
        The files in the order of `array`'s slices.
    """
    array = voxels() if array is None else array
    affine = lps_affine() if affine is None else affine
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(array.shape[2]):
        dataset = image(array, affine, index, modality=modality, seed=seed)
        encode(dataset, array[:, :, index].T, syntax)
        if edit is not None:
            edit(dataset, index)
        paths.append(folder / name(index))
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def put(**values: Any) -> Edit:
    """Edit that sets the same values in every slice; None deletes the element."""

    def edit(dataset: Dataset, index: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def put_at(where: int, **values: Any) -> Edit:
    """Edit that sets values in slice `where` alone."""
    everywhere = put(**values)

    def edit(dataset: Dataset, index: int) -> None:
        if index == where:
            everywhere(dataset, index)

    return edit


def shift_at(where: int, *, mm: tuple[float, float, float]) -> Edit:
    """Edit that moves slice `where`."""

    def edit(dataset: Dataset, index: int) -> None:
        if index == where:
            position = np.array(dataset.ImagePositionPatient, float) + mm
            dataset.ImagePositionPatient = [round(float(value), 9) for value in position]

    return edit
