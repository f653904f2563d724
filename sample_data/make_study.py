"""Make `sample_data/study/`: a CT series without anything that identifies anybody, and an MR crop as a DICOM series.

    .venv/bin/python sample_data/make_study.py CT_FOLDER [OUTPUT]

CT_FOLDER is the CT series as TotalSegmentator's test data hold it; in this project's development,
`../shared/data/dicom/ct_512`.
The same input gives the same bytes, UIDs included.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from volseg.export.identity import repair_uids
from volseg.geometry import ras_from_lps
from volseg.loaders import find, load

HERE = Path(__file__).resolve().parent
#: One of the dozen whose voxels are integers: DICOM holds them exactly.
MR_CASE = HERE / "hippocampus" / "imagesTr" / "hippocampus_125.nii.gz"

#: What is kept of the CT: how it was made and where it lies. Everything else goes, unread.
CT_KEPT = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "Modality",
    "Manufacturer",
    "SeriesDescription",
    "SliceThickness",
    "KVP",
    "DataCollectionDiameter",
    "ReconstructionDiameter",
    "GantryDetectorTilt",
    "RotationDirection",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
    "FilterType",
    "FocalSpots",
    "ConvolutionKernel",
    "PatientPosition",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceLocation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "PixelData",
)
#: Required by DICOM, and left empty on purpose.
EMPTY = (
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientBirthDate",
    "PatientSex",
    "PositionReferenceIndicator",
)


def main() -> None:
    """Make both series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct_folder", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=HERE / "study")
    arguments = parser.parse_args()
    make_ct(arguments.ct_folder, arguments.output / "ct")
    make_mr(MR_CASE, arguments.output / "mr")
    for candidate in find(arguments.output).candidates:
        print(candidate.name, "usable" if candidate.usable else candidate.reason)


def make_ct(source: Path, target: Path) -> None:
    """Copy a CT series: what identifies goes, pixel data stay as they are compressed, UIDs are made up."""
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted(source.iterdir()):
            stripped(pydicom.dcmread(path)).save_as(Path(temporary, path.name), enforce_file_format=True)
        (candidate,) = find(Path(temporary)).candidates
        shutil.rmtree(target, ignore_errors=True)
        repair_uids(candidate, target)


def stripped(dataset: Dataset) -> Dataset:
    """Data set with nothing but `CT_KEPT`; the file meta information keeps its instance UID for `repair_uids`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    meta.MediaStorageSOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    kept = Dataset()
    for keyword in CT_KEPT:
        if keyword in dataset:
            kept.add(dataset[keyword])
    kept.SOPClassUID = meta.MediaStorageSOPClassUID
    kept.ImageType = list(kept.ImageType)[:3]
    kept.file_meta = meta
    add_context(kept, "CT", "ABDOMEN")
    return kept


def add_context(dataset: Dataset, modality: str, body_part: str) -> None:
    """Add the patient who is nobody, and what DICOM requires without requiring a value."""
    meta = dataset.file_meta
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = "VOLSEG_SAMPLE"
    for keyword in EMPTY:
        setattr(dataset, keyword, "")
    dataset.PatientName = "volseg^sample"
    dataset.PatientID = f"SAMPLE-{modality}"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "volseg sample_data/make_study.py"
    dataset.BodyPartExamined = body_part
    dataset.StudyDate, dataset.StudyTime = "20000101", "000000"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1


def make_mr(source: Path, target: Path) -> None:
    """Write a NIfTI crop as an MR series: the same voxels in the same places."""
    volume = load(source)
    affine = ras_from_lps(volume.geometry.affine)
    directions = affine[:3, :3] / np.array(volume.geometry.spacing_mm)
    if np.linalg.det(directions) < 0 or not np.can_cast(volume.array.dtype, np.int16):
        raise SystemExit(f"{source}: needed are a right-handed grid and integers of at most 16 bits")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shared = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    uids = {keyword: generate_uid(entropy_srcs=[keyword, volume.source.sha256]) for keyword in shared}
    highest = int(volume.array.max())
    i_mm, j_mm, k_mm = volume.geometry.spacing_mm
    for k in range(volume.geometry.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["Instance", volume.source.sha256, str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = Dataset()
        image.file_meta = meta
        add_context(image, "MR", "BRAIN")
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        for keyword, uid in uids.items():
            setattr(image, keyword, uid)
        image.Modality, image.SeriesDescription = "MR", "HippoCrop"
        image.Manufacturer = image.PatientPosition = ""
        image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "GR", "MP", ""
        image.MRAcquisitionType = "3D"
        image.EchoTime = image.RepetitionTime = image.EchoTrainLength = None
        image.SliceThickness = float(k_mm)
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = [float(value) for value in affine[:3] @ [0, 0, k, 1]]
        image.ImageOrientationPatient = [float(value) for value in directions[:, :2].T.ravel()]
        image.PixelSpacing = [float(j_mm), float(i_mm)]
        image.Columns, image.Rows = volume.geometry.shape[:2]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.WindowCenter, image.WindowWidth = highest // 2, highest
        image.PixelData = volume.array[:, :, k].T.astype("<i2").tobytes()
        image.save_as(target / f"slice_{k + 1:04d}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    main()
