"""DICOM headers to series: group, check, sort, and say for each whether it makes a volume."""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID

from volseg.config import canonical_modality
from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import Geometry
from volseg.loaders.candidate import Candidate, Ignored, count, digest8, safe_name
from volseg.loaders.dicom_header import DISTINGUISHING, STORAGE, Header, blank_identity, element_text
from volseg.loaders.stack import Plane, stack_planes

#: Longest part of a case name that is the series description.
DESCRIPTION_LENGTH = 40
#: Modality by storage class, where the modality is blank.
_MODALITIES = {"2": "CT", "4": "MR", "128": "PT"}


def group_series(headers: Iterable[Header]) -> list[list[Header]]:
    """Headers by series, in an order that doesn't depend on that of the files.

    Where the series UID is blank, one folder's files that agree on everything else that a series shares are one.
    """
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        shared = [header.text(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")]
        if not shared[1]:
            shared += [
                str(header.path.parent),
                *(
                    header.text(keyword)
                    for keyword in ("Modality", "SeriesNumber", "SeriesDescription", "FrameOfReferenceUID")
                ),
            ]
        series[tuple(shared)].append(header)
    return [series[key] for key in sorted(series)]


def describe(headers: Sequence[Header]) -> tuple[Candidate, list[Ignored]]:
    """Candidate from the files of one series, and the copies among them that are left out."""
    kept, copies = _without_copies(headers)
    notes = [f"{count(len(copies), 'file')} that are copies of others were left out"] if copies else []
    geometry, refused = None, None
    try:
        _check_pixels(kept)
        stack = stack_planes(_planes(kept))
        kept = [kept[index] for index in stack.order]
        geometry = stack.geometry
        notes += [*stack.notes, *_hints(kept)]
    except RefusalError as error:
        refused = error
    notes += identity_notes([header.dataset for header in kept])
    return _candidate(kept, geometry, refused, notes), copies


def _candidate(
    headers: Sequence[Header], geometry: Geometry | None, refused: RefusalError | None, notes: list[str]
) -> Candidate:
    first = headers[0]
    modality = canonical_modality(first.text("Modality")) or _MODALITIES.get(
        first.sop_class_uid.removeprefix(STORAGE).split(".")[0]
    )
    number = first.integer("SeriesNumber")
    description = first.text("SeriesDescription")
    series_uid = first.text("SeriesInstanceUID")
    paths = tuple(header.path for header in headers)
    parts = (
        safe_name(modality or ""),
        "x" if number is None else str(number),
        safe_name(description, DESCRIPTION_LENGTH),
        digest8([series_uid] if series_uid else sorted(_instance_ids(headers))),
    )
    return Candidate(
        name="-".join(parts),
        kind="dicom",
        modality=modality,
        description=description,
        path=Path(os.path.commonpath([path.parent for path in paths])) if len(paths) > 1 else paths[0],
        files=paths,
        series_uid=series_uid or None,
        series_number=number,
        geometry=geometry,
        channels=1,
        usable=refused is None,
        reason=refused.reason if refused else None,
        code=refused.code if refused else None,
        notes=tuple(notes),
    )


def damaged(path: Path, error: RefusalError) -> Candidate:
    """Candidate from a file that claims to be DICOM and can't be read."""
    return Candidate(
        # Not the file's name: an export may name files after patients.
        name=f"unreadable-{digest8([path.name])}",
        kind="dicom",
        modality=None,
        description=path.name,
        path=path,
        files=(path,),
        series_uid=None,
        series_number=None,
        geometry=None,
        channels=1,
        usable=False,
        reason=error.reason,
        code=error.code,
    )


def _instance_ids(headers: Sequence[Header]) -> list[str]:
    """SOP instance UIDs, or where there are none at all, what the files hold."""
    return [header.sop_instance_uid or hashlib.sha256(header.path.read_bytes()).hexdigest() for header in headers]


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Ignored]]:
    """Leave out files that are byte for byte the same as another of the same instance UID."""
    kept: list[Header] = []
    copies: list[Ignored] = []
    seen: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda header: header.path):
        alike = seen[header.sop_instance_uid, header.text("ImagePositionPatient")]
        original = next((other for other in alike if filecmp.cmp(other.path, header.path, shallow=False)), None)
        if original is None:
            alike.append(header)
            kept.append(header)
        else:
            copies.append(Ignored(header.path, f"a copy of {original.path.name}"))
    return kept, copies


def _check_pixels(headers: Sequence[Header]) -> None:
    """Refuse what makes no volume, whatever its geometry."""
    for header in headers:
        name = header.path.name
        if header.problem:
            raise InputError(f"{name}: {header.problem}", code="unreadable")
        if (header.integer("SamplesPerPixel") or 1) != 1 or not (
            header.text("PhotometricInterpretation") or "MONOCHROME2"
        ).startswith("MONOCHROME"):
            raise InputError(f"{name}: colour pixels; a scan has one number a voxel", code="not-scalar")
        class_name = UID(header.sop_class_uid).name
        if (header.integer("NumberOfFrames") or 1) > 1 or "Enhanced" in class_name:
            raise InputError(
                f"{name}: a multi-frame object ({class_name}); convert it to one file a slice", code="unsupported"
            )
        if header.integer("BitsAllocated") not in (8, 16, 32):
            raise InputError(f"{name}: {header.text('BitsAllocated') or 'no'} bits a pixel", code="unsupported")
        if "ModalityLUTSequence" in header.dataset:
            raise InputError(f"{name}: values through a modality look-up table", code="unsupported")
        if not _decodable(header.transfer_syntax):
            raise InputError(
                f"{name}: no codec for {header.transfer_syntax.name}; decompress the files first", code="unsupported"
            )
    if len(headers) < 2:
        raise GeometryError("a single slice; give the folder that holds the whole series", code="not-3d")


def _decodable(syntax: UID) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _planes(headers: Sequence[Header]) -> list[Plane]:
    planes = []
    for header in headers:
        position = header.numbers("ImagePositionPatient", 3)
        directions = header.numbers("ImageOrientationPatient", 6)
        spacing = header.numbers("PixelSpacing", 2)
        rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
        given = {
            "ImagePositionPatient": position,
            "ImageOrientationPatient": directions,
            "PixelSpacing": spacing if spacing and min(spacing) > 0 else None,
        }
        if position is None or directions is None or given["PixelSpacing"] is None or spacing is None:
            absent = " and no ".join(keyword for keyword, value in given.items() if value is None)
            raise GeometryError(
                f"{header.path.name} has no valid {absent}; export the series anew from its source",
                code="missing-geometry",
            )
        planes.append(
            Plane(
                name=header.path.name,
                position=position,
                row=directions[:3],
                column=directions[3:],
                spacing_mm=(spacing[1], spacing[0]),
                size=(columns, rows),
                frame=header.text("FrameOfReferenceUID"),
                tags={keyword: header.text(keyword) for keyword in DISTINGUISHING},
            )
        )
    return planes


def _hints(headers: Sequence[Header]) -> list[str]:
    """Notes where the files hint at slices that are absent at an end, which geometry can't show."""
    notes = []
    promised = max((header.integer("ImagesInAcquisition") or 0 for header in headers), default=0)
    if promised > len(headers):
        notes.append(
            f"ImagesInAcquisition says {promised} and {count(len(headers), 'slice')} are there: slices may be absent"
            " at an end"
        )
    numbers = sorted(number for header in headers if (number := header.integer("InstanceNumber")) is not None)
    if numbers and (numbers[0] > 1 or numbers[-1] - numbers[0] + 1 > len(headers)):
        notes.append(
            f"InstanceNumber goes from {numbers[0]} to {numbers[-1]} for {count(len(headers), 'slice')}: slices may be"
            " absent at an end"
        )
    if any(header.text("PhotometricInterpretation") == "MONOCHROME1" for header in headers):
        notes.append("MONOCHROME1: low values are shown bright; the values are kept as stored")
    return notes


def identity_notes(datasets: Sequence[Dataset]) -> list[str]:
    """The note to give where UIDs are blank."""
    blank = blank_identity(datasets)
    if not blank:
        return []
    kept = all(element_text(dataset.file_meta, "MediaStorageSOPInstanceUID") for dataset in datasets)
    held = "; class and instance are taken from the file meta information" if kept and "SOPInstanceUID" in blank else ""
    return [f"blank in the files: {', '.join(blank)}{held}. DICOM objects can't refer to such a series (--repair-uids)"]
