"""Masks on slices that lie in files, in frames or in archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from tests.helpers.scans import blobs
from volseg.geometry import Geometry, ras_from_lps
from volseg.volume import DicomSource, Instance, LabelVolume, Source


def source_of(slices: Sequence[tuple[Path, int | None]]) -> Source:
    """A source of these slices, by pydicom."""
    headers = {path: pydicom.dcmread(io.BytesIO(content(path))) for path, _ in slices}
    first = headers[slices[0][0]]
    instances = tuple(
        Instance(path=path, sop_class_uid=h.SOPClassUID, sop_instance_uid=h.SOPInstanceUID, frame=frame)
        for path, frame in slices
        for h in [headers[path]]
    )
    dicom = DicomSource(
        study_uid=first.StudyInstanceUID,
        series_uid=first.SeriesInstanceUID,
        frame_of_reference_uid=first.FrameOfReferenceUID,
        instances=instances,
        identity=True,
    )
    return Source(kind="dicom", name="case", modality=first.Modality, dicom=dicom)


def content(path: Path) -> bytes:
    if path.exists():
        return path.read_bytes()
    archive = next(parent for parent in path.parents if parent.is_file())
    return zipfile.ZipFile(archive).read(path.relative_to(archive).as_posix())


def mask_on(
    slices: Sequence[tuple[Path, int | None]], affine_lps: np.ndarray, columns_rows: tuple[int, int]
) -> LabelVolume:
    geometry = Geometry((*columns_rows, len(slices)), ras_from_lps(affine_lps))
    return blobs(geometry, source_of(slices))
