"""DICOM objects other than single-frame images, for tests: written with pydicom alone, all UIDs from a seed.

Arrays are [column, row, slice]; affines are LPS, as in `tests.helpers.dicom_files`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from tests.helpers.dicom_files import Array, image


def items(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A coded concept, as a sequence of one item."""
    return items(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def save(dataset: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write one object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def blank(sop_class: UID, modality: str, seed: str, like: Dataset | None = None) -> Dataset:
    """Patient, study, series and instance, those of `like` where there is one."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[seed, "object"])
    dataset.StudyInstanceUID = like.StudyInstanceUID if like else generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, "object series"])
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = modality, seed, 90, 1
    dataset.PatientName = like.PatientName if like else "Nobody^Known"
    dataset.PatientID = like.PatientID if like else "ID-17"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.StudyID = dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.Manufacturer = ""
    return dataset


def referring(dataset: Dataset, images: Sequence[Dataset]) -> None:
    """Say which images of one series an object was made from."""
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    instances = [
        items(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID)[0] for one in images
    ]
    series.ReferencedInstanceSequence = instances
    dataset.ReferencedSeriesSequence = [series]


def _dimensions(dataset: Dataset, *pointers: tuple[str, str]) -> None:
    """Say what DimensionIndexValues count: a sequence of the functional groups, and an element in it."""
    uid = generate_uid(entropy_srcs=[dataset.SOPInstanceUID, "dimensions"])
    dataset.DimensionOrganizationSequence = items(DimensionOrganizationUID=uid)
    dataset.DimensionIndexSequence = [
        items(
            DimensionOrganizationUID=uid,
            FunctionalGroupPointer=tag_for_keyword(group),
            DimensionIndexPointer=tag_for_keyword(keyword),
        )[0]
        for group, keyword in pointers
    ]


def enhanced_mr(array: Array, affine: Array, *, seed: str = "enhanced", frames: Sequence[int] | None = None) -> Dataset:
    """Enhanced MR of one stack; `frames` is the order in which the slices are stored."""
    order = list(range(array.shape[2])) if frames is None else list(frames)
    dataset = image(array, affine, 0, seed=seed)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    first = image(array, affine, 0)
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = b"".join(np.ascontiguousarray(array[:, :, index].T).tobytes() for index in order)
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset.SharedFunctionalGroupsSequence = items(
        PlaneOrientationSequence=items(ImageOrientationPatient=first.ImageOrientationPatient),
        PixelMeasuresSequence=items(PixelSpacing=first.PixelSpacing, SliceThickness=99.0),
        PixelValueTransformationSequence=items(RescaleIntercept=0, RescaleSlope=1, RescaleType="US"),
    )
    _dimensions(dataset, ("FrameContentSequence", "StackID"), ("FrameContentSequence", "InStackPositionNumber"))
    dataset.PerFrameFunctionalGroupsSequence = [
        items(
            PlanePositionSequence=items(ImagePositionPatient=image(array, affine, index).ImagePositionPatient),
            FrameContentSequence=items(
                StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1]
            ),
        )[0]
        for index in order
    ]
    return dataset


def with_echoes(array: Array, affine: Array, times: Sequence[float], *, seed: str = "echoes") -> Dataset:
    """Enhanced MR with a frame for each echo time at each slice, echo n of slice k being ``array + 10 n``."""
    dataset = enhanced_mr(array, affine, seed=seed)
    frames = []
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        for time in times:
            frames.append(copy.deepcopy(frame))
            frames[-1].MREchoSequence = items(EffectiveEchoTime=time)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(frames)
    echoes = [array.T + 10 * number for number in range(len(times))]
    dataset.PixelData = np.stack(echoes, axis=1).astype(array.dtype).tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    return dataset


def segmentation(images: Sequence[Dataset], masks: Sequence[Array], *, seed: str = "seg") -> Dataset:
    """Binary SEG on the slices of `images`: one segment for each of `masks` [column, row, slice], one frame a slice."""
    dataset = blank(SegmentationStorage, "SEG", seed, images[0])
    dataset.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    dataset.PositionReferenceIndicator = ""
    referring(dataset, images)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.Rows, dataset.Columns = images[0].Rows, images[0].Columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit, dataset.LossyImageCompression = 0, "00"
    dataset.SegmentationType, dataset.ContentLabel, dataset.ContentDescription = "BINARY", "MASK", seed
    dataset.SegmentSequence = [
        items(
            SegmentNumber=number,
            SegmentLabel=f"part {number}",
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=code("91723000", "SCT", "Anatomical Structure"),
            SegmentedPropertyTypeCodeSequence=code("5366008", "SCT", "Hippocampus"),
        )[0]
        for number in range(1, len(masks) + 1)
    ]
    step = float(np.linalg.norm(np.subtract(images[1].ImagePositionPatient, images[0].ImagePositionPatient)))
    dataset.SharedFunctionalGroupsSequence = items(
        PlaneOrientationSequence=items(ImageOrientationPatient=images[0].ImageOrientationPatient),
        PixelMeasuresSequence=items(
            PixelSpacing=images[0].PixelSpacing, SliceThickness=step, SpacingBetweenSlices=step
        ),
    )
    _dimensions(
        dataset,
        ("SegmentIdentificationSequence", "ReferencedSegmentNumber"),
        ("PlanePositionSequence", "ImagePositionPatient"),
    )
    frames = [(number, index) for number in range(len(masks)) for index in range(len(images))]
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = [
        items(
            PlanePositionSequence=items(ImagePositionPatient=images[index].ImagePositionPatient),
            FrameContentSequence=items(DimensionIndexValues=[number + 1, index + 1]),
            SegmentIdentificationSequence=items(ReferencedSegmentNumber=number + 1),
            DerivationImageSequence=items(
                DerivationCodeSequence=code("113076", "DCM", "Segmentation"),
                SourceImageSequence=items(
                    ReferencedSOPClassUID=images[index].SOPClassUID,
                    ReferencedSOPInstanceUID=images[index].SOPInstanceUID,
                    PurposeOfReferenceCodeSequence=code("121322", "DCM", "Source image for image processing operation"),
                ),
            ),
        )[0]
        for number, index in frames
    ]
    bits = np.concatenate([(masks[number][:, :, index].T > 0).ravel() for number, index in frames])
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset["PixelData"].VR = "OB"
    return dataset


def structure_set(images: Sequence[Dataset], contours: Sequence[Array], *, seed: str = "structures") -> Dataset:
    """RTSTRUCT with one structure; each of `contours` is [point, xyz] in LPS mm, on the slice of the same index."""
    dataset = blank(RTStructureSetStorage, "RTSTRUCT", seed, images[0])
    dataset.StructureSetLabel, dataset.StructureSetDate, dataset.StructureSetTime = seed, "", ""
    dataset.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    refers = [
        items(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID) for one in images
    ]
    dataset.ReferencedFrameOfReferenceSequence = items(
        FrameOfReferenceUID=images[0].FrameOfReferenceUID,
        RTReferencedStudySequence=items(
            ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
            ReferencedSOPInstanceUID=images[0].StudyInstanceUID,
            RTReferencedSeriesSequence=items(
                SeriesInstanceUID=images[0].SeriesInstanceUID, ContourImageSequence=[item for [item] in refers]
            ),
        ),
    )
    dataset.StructureSetROISequence = items(
        ROINumber=1,
        ReferencedFrameOfReferenceUID=images[0].FrameOfReferenceUID,
        ROIName="part 1",
        ROIGenerationAlgorithm="MANUAL",
    )
    dataset.ROIContourSequence = items(
        ROIDisplayColor=[255, 0, 0],
        ReferencedROINumber=1,
        ContourSequence=[
            items(
                ContourImageSequence=refers[index],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.4f}" for value in np.asarray(points).ravel()],
            )[0]
            for index, points in enumerate(contours)
        ],
    )
    dataset.RTROIObservationsSequence = items(
        ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="ORGAN", ROIInterpreter=""
    )
    return dataset


def report(images: Sequence[Dataset], *, seed: str = "report") -> Dataset:
    """A structured report of one sentence on the images."""
    dataset = blank(BasicTextSRStorage, "SR", seed, images[0])
    dataset.CompletionFlag, dataset.VerificationFlag, dataset.ValueType = "COMPLETE", "UNVERIFIED", "CONTAINER"
    dataset.ContentDate, dataset.ContentTime, dataset.ContinuityOfContent = "20200101", "120000", "SEPARATE"
    dataset.ConceptNameCodeSequence = code("18782-3", "LN", "Radiology Study observation (findings)")
    dataset.ContentSequence = items(
        RelationshipType="CONTAINS",
        ValueType="TEXT",
        ConceptNameCodeSequence=code("121071", "DCM", "Finding"),
        TextValue="Nothing to see.",
    )
    study = items(StudyInstanceUID=images[0].StudyInstanceUID)[0]
    holder = Dataset()
    referring(holder, images)
    series = holder.ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence = series.ReferencedInstanceSequence
    del series.ReferencedInstanceSequence
    study.ReferencedSeriesSequence = [series]
    dataset.CurrentRequestedProcedureEvidenceSequence = [study]
    return dataset


def presentation(images: Sequence[Dataset], *, seed: str = "presentation") -> Dataset:
    """A grayscale presentation state of the images."""
    dataset = blank(GrayscaleSoftcopyPresentationStateStorage, "PR", seed, images[0])
    dataset.ContentLabel, dataset.ContentDescription = "WINDOW", ""
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = "20200101", "120000"
    holder = Dataset()
    referring(holder, images)
    series = holder.ReferencedSeriesSequence[0]
    series.ReferencedImageSequence = series.ReferencedInstanceSequence
    del series.ReferencedInstanceSequence
    dataset.ReferencedSeriesSequence = [series]
    dataset.SoftcopyVOILUTSequence = items(WindowCenter=40, WindowWidth=400)
    dataset.PresentationLUTShape = "IDENTITY"
    return dataset


def pdf(*, seed: str = "letter", like: Dataset | None = None) -> Dataset:
    """A PDF inside a DICOM object."""
    dataset = blank(EncapsulatedPDFStorage, "DOC", seed, like)
    dataset.DocumentTitle, dataset.BurnedInAnnotation, dataset.ConversionType = "Letter", "YES", "WSD"
    dataset.EncapsulatedDocument = b"%PDF-1.4\n%%EOF\n\0"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    return dataset


def secondary_capture(*, seed: str = "screenshot", like: Dataset | None = None) -> Dataset:
    """A screenshot in grey, without a position."""
    dataset = blank(SecondaryCaptureImageStorage, like.Modality if like else "OT", seed, like)
    dataset.ConversionType = "WSD"
    _pixels(dataset, np.arange(20, dtype=np.uint8).reshape(5, 4))
    return dataset


def radiograph(*, seed: str = "chest", like: Dataset | None = None) -> Dataset:
    """A digital X-ray image."""
    dataset = blank(DigitalXRayImageStorageForPresentation, "DX", seed, like)
    dataset.ImageType, dataset.ImagerPixelSpacing = ["ORIGINAL", "PRIMARY"], [0.15, 0.15]
    _pixels(dataset, np.arange(48, dtype=np.uint16).reshape(8, 6))
    return dataset


def _pixels(dataset: Dataset, array_RC: Array) -> None:
    """Store one image [row, column]."""
    bits = array_RC.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = array_RC.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelData = array_RC.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
