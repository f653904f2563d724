"""What was measured as a DICOM structured report (TID 1500), referring to the SEG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import highdicom
import pydicom
from highdicom.sr import CodedConcept, Measurement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import generate_uid

from volseg import __version__
from volseg.errors import ExportError
from volseg.export.dicom_derived import Uids, complete_identity, series_number
from volseg.export.dicom_source import read_headers
from volseg.export.measures import Measures, Values, measure
from volseg.export.outputs import FinishedCase, Written
from volseg.export.terms import text, with_code
from volseg.files import write_atomically
from volseg.loaders.dicom.quiet import quiet
from volseg.results import LABEL_MAP, REPORT, SEG
from volseg.results.case import ModelIdentity
from volseg.volume import Code

#: What a value of a scan is, and its unit, by the scan's modality. Of others no two scanners' values mean the same.
_QUANTITIES = {
    "CT": (codes.DCM.AttenuationCoefficient, PydicomCode("[hnsf'U]", "UCUM", "Hounsfield unit")),
    "MR": (codes.DCM.MRSignalIntensity, PydicomCode("1", "UCUM", "no units")),
}
_PROCEDURES = {"CT": codes.cid100.CTUnspecifiedBodyRegion, "MR": codes.cid100.MRIUnspecifiedBodyRegion}


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write the report: of each label that occurs its volume, and in CT and MR mean, SD, minimum and maximum.

    Raises
    ------
    ExportError
        As `volseg.export.dicom_seg.write`; code ``format`` also where no SEG lies in the folder.
    """
    quiet()
    path = folder / REPORT
    headers = read_headers(case.mask, path)
    notes = complete_identity(headers[0])
    segmentation = _segmentation(folder, path)
    uids = Uids(case.mask, "sr", segmentation.SOPInstanceUID)
    report = highdicom.sr.Comprehensive3DSR(
        evidence=[segmentation, *headers],
        content=_content(case, segmentation, headers[0]),
        series_instance_uid=uids.series,
        series_number=series_number(headers[0], 3000),
        sop_instance_uid=uids.instance,
        instance_number=1,
        manufacturer="volseg",
        is_complete=True,
        series_description=text(f"volseg measurements: {headers[0].get('SeriesDescription') or 'segmentation'}"),
    )
    stream = io.BytesIO()
    report.save_as(stream, enforce_file_format=True)
    write_atomically(path, stream.getvalue())
    return Written(notes=notes)


def _segmentation(folder: Path, path: Path) -> Dataset:
    for name in (SEG, LABEL_MAP):
        if (folder / name).exists():
            return pydicom.dcmread(folder / name, stop_before_pixels=True)
    raise ExportError("a report refers to a SEG: write that too (--format seg,sr)", code="format", path=path)


def _content(case: FinishedCase, segmentation: Dataset, header: Dataset) -> highdicom.sr.MeasurementReport:
    modality = str(header.get("Modality") or "")
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["volseg", __version__]), name="volseg", manufacturer_name="volseg"
    )
    observer = highdicom.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    measured = list(enumerate(measure(case.mask, case.scan), start=1))
    # A report without measurements isn't allowed: of an empty mask it says that volumes are 0.
    told = [(number, found) for number, found in measured if found.voxels] or measured
    groups = [_group(found, modality, _algorithm(case.model), segmentation, number) for number, found in told]
    return highdicom.sr.MeasurementReport(
        observation_context=highdicom.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_PROCEDURES.get(modality, codes.cid100.ImagingProcedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )


def _algorithm(model: ModelIdentity) -> highdicom.sr.AlgorithmIdentification:
    return highdicom.sr.AlgorithmIdentification(
        name=text(model.name), version=model.version or __version__, parameters=[f"model.json sha256 {model.sha256}"]
    )


def _group(
    found: Measures, modality: str, algorithm: highdicom.sr.AlgorithmIdentification, segmentation: Dataset, number: int
) -> highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """The measurements of a label, which are of segment `number`."""
    label, segment = with_code(found.label), segmentation.SegmentSequence[number - 1]
    assert label.code is not None
    sides = [] if label.modifier is None else [_site(label.code, label.modifier)]
    return highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=highdicom.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=highdicom.sr.SourceSeriesForSegmentation(
                segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
            ),
        ),
        finding_type=_concept(label.code),
        finding_category=_concept(label.category),
        finding_sites=sides,
        algorithm_id=algorithm,
        measurements=[
            Measurement(name=codes.SCT.Volume, value=round(found.volume_ml, 6), unit=codes.UCUM.CubicCentimeter),
            *_of_values(found.values, modality),
        ],
    )


def _site(code: Code, side: Code) -> highdicom.sr.FindingSite:
    laterality = _concept(side) if side.meaning in ("Left", "Right") else None
    modifier = None if laterality else _concept(side)
    return highdicom.sr.FindingSite(
        anatomic_location=_concept(code), laterality=laterality, topographical_modifier=modifier
    )


def _of_values(values: Values | None, modality: str) -> Iterator[Measurement]:
    if values is None or modality not in _QUANTITIES:
        return
    name, unit = _QUANTITIES[modality]
    derived = (
        (codes.SCT.Mean, values.mean),
        (codes.SCT.StandardDeviation, values.sd),
        (codes.SCT.Minimum, values.minimum),
        (codes.SCT.Maximum, values.maximum),
    )
    for derivation, value in derived:
        yield Measurement(name=name, value=float(f"{value:.6g}"), unit=unit, derivation=derivation)


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, text(code.meaning))
