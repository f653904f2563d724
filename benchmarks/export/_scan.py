"""A CT with 118 structures, made here: bodies that touch, in an oval of soft tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from volseg.loaders import load
from volseg.volume import Code, Label, LabelVolume

LABELS = 118
SPACING_MM = (0.75, 0.75, 1.5)


def structures(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Voxels [i, j, k] of 1 to 118, 0 between and around them: what is nearest to 118 of 160 random points."""
    random = np.random.default_rng(20)
    coarse = (shape[0] // 2, shape[1] // 2, shape[2])
    places = random.random((160, 3)) * (np.array(coarse) - 1)
    seeds = np.ones(coarse, np.bool_)
    names = np.zeros(coarse, np.uint8)
    for name, place in enumerate(places.round().astype(int), start=1):
        seeds[tuple(place)] = False
        names[tuple(place)] = name if name <= LABELS else 0
    sampling = (2 * SPACING_MM[0], 2 * SPACING_MM[1], SPACING_MM[2])
    nearest = ndimage.distance_transform_edt(seeds, sampling, return_distances=False, return_indices=True)
    found = names[tuple(nearest)].repeat(2, axis=0).repeat(2, axis=1)
    i, j = np.ogrid[: shape[0], : shape[1]]
    body = ((i / shape[0] - 0.5) / 0.42) ** 2 + ((j / shape[1] - 0.5) / 0.33) ** 2 < 1
    # Borders of organs aren't straight: voxels move by up to two places.
    moved = np.roll(found, 2, axis=0)
    noise = ndimage.gaussian_filter(random.standard_normal(shape[:2]), 3) > 0
    return np.asarray(np.where(noise[..., None], moved, found) * body[..., None])


def write_ct(folder: Path, shape: tuple[int, int, int]) -> None:
    """An axial series of `shape`, of noise in a byte a pixel: what is in the pixels doesn't matter here."""
    folder.mkdir(parents=True)
    series, study, frame = (generate_uid(entropy_srcs=["volseg benchmark", name]) for name in ("a", "b", "c"))
    pixels = np.random.default_rng(0).integers(0, 200, shape[:2], np.uint16).tobytes()
    for k in range(shape[2]):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[series, str(k)])
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 2, k + 1
        image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Made^Up", "1", "", ""
        image.StudyDate = image.StudyTime = image.StudyID = image.AccessionNumber = image.ReferringPhysicianName = ""
        image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-192, -192, k * SPACING_MM[2]]
        image.PixelSpacing, image.SliceThickness = list(SPACING_MM[:2]), SPACING_MM[2]
        image.Columns, image.Rows = shape[:2]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.PixelData = pixels
        image["PixelData"].VR = "OW"
        pydicom.dcmwrite(folder / f"{k:04}.dcm", image, enforce_file_format=True)


def segmented(folder: Path) -> LabelVolume:
    """The series in a folder with its 118 structures."""
    scan = load(folder)
    code = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
    labels = tuple(
        Label(value=value, name=f"structure {value}", colour=(value, 255 - value, 90), code=code)
        for value in range(1, LABELS + 1)
    )
    return LabelVolume(structures(scan.geometry.shape), scan.geometry, labels, scan.source, "benchmark 1")
