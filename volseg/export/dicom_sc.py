"""The picture of the mask, with the volumes, as a DICOM image (Secondary Capture): one page that every PACS shows."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from volseg import __version__
from volseg.export.dicom_derived import Uids, complete_identity, derived_from, series_number
from volseg.export.dicom_source import read_headers
from volseg.export.outputs import FinishedCase, Written
from volseg.export.terms import text
from volseg.files import write_atomically
from volseg.inference import on_grid
from volseg.loaders.dicom.quiet import quiet
from volseg.report.pictures import preview_pixels
from volseg.results import SUMMARY


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write the page into the study of the source.

    Raises
    ------
    ExportError
        Codes ``no-source-series`` and ``no-identity``, as `volseg.export.dicom_seg.write`.
    """
    quiet()
    path = folder / SUMMARY
    headers = read_headers(case.mask, path)
    notes = complete_identity(headers[0])
    stream = io.BytesIO()
    _summary(case, headers[0]).save_as(stream, enforce_file_format=True)
    write_atomically(path, stream.getvalue())
    return Written(notes=notes)


def _summary(case: FinishedCase, header: Dataset) -> Dataset:
    uids, now = Uids(case.mask, "sc"), datetime.now()
    dataset = derived_from(header)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, uids.instance
    dataset.SeriesInstanceUID, dataset.InstanceNumber = uids.series, 1
    dataset.SeriesNumber = series_number(header, 4000)
    dataset.SeriesDescription = text(f"volseg summary: {header.get('SeriesDescription') or 'segmentation'}")
    dataset.Modality, dataset.ConversionType = "OT", "WSD"
    dataset.ImageType, dataset.BurnedInAnnotation = ["DERIVED", "SECONDARY"], "NO"
    dataset.PatientOrientation = ""
    dataset.Manufacturer = dataset.ManufacturerModelName = "volseg"
    dataset.SoftwareVersions = __version__
    dataset.ContentDate, dataset.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    _draw(dataset, case)
    return dataset


def _draw(dataset: Dataset, case: FinishedCase) -> None:
    # As the preview: slices that lean would be skewed.
    pixels = preview_pixels(case.scan, on_grid(case.mask, case.scan.geometry))
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = pixels.shape
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    content = pixels.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB"
