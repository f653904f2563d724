"""DICOM headers to series: group, check, split, sort, and say for each volume whether it can be used."""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import FARTHEST_MM, Geometry
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate, Ignored
from volseg.loaders.dicom.codecs import Layout, refused_syntax
from volseg.loaders.dicom.header import Header
from volseg.loaders.dicom.mosaic import tiles
from volseg.loaders.dicom.pet import pet_notes
from volseg.loaders.dicom.pixels import read, same_image
from volseg.loaders.dicom.sop_class import class_name, is_projection, is_ultrasound, modality_of
from volseg.loaders.dicom.split import Part, split_planes
from volseg.loaders.dicom.stack import Plane
from volseg.loaders.dicom.values import DISTINGUISHING, IDENTITY, SEQUENCE
from volseg.text import count, digest8, relative, safe_name
from volseg.volume import canonical_modality

#: Longest part of a case name that is the series description.
DESCRIPTION_LENGTH = 40
#: From so many single images on that make one volume, each is taken for a slice that lost its series.
SCATTERED = 4
#: What such slices have in common, and what each has of its own.
_ALIKE = ("SeriesDescription", "Modality", "Rows", "Columns", "ImageOrientationPatient", "PixelSpacing")
_OWN = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID")
#: What the files of one series share, beside their series UID, even where an anonymiser gave that to several.
_SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality")


#: What `_check_pixels` looks at.
_PIXELS = (
    "SOPClassUID",
    "MediaStorageSOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImageType",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "Rows",
    "Columns",
    "ModalityLUTSequence",
    "TransferSyntaxUID",
)


def group_series(headers: Iterable[Header]) -> list[list[Header]]:
    """Headers by series, in an order that doesn't depend on that of the files.

    Where the series UID is blank, one folder's files that agree on everything else that a series shares are one.
    """
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        shared = [header.text(keyword) for keyword in _SHARED]
        if not shared[1]:
            shared += [
                str(header.path.parent),
                *(header.text(keyword) for keyword in ("SeriesNumber", "SeriesDescription", "FrameOfReferenceUID")),
            ]
        series[tuple(shared)].append(header)
    return [series[key] for key in sorted(series)]


def describe(headers: Sequence[Header]) -> tuple[list[Candidate], list[Ignored]]:
    """Candidates from the files of one series, and the copies among them that are left out."""
    kept, copies = _without_copies(headers)
    notes = [f"{count(len(copies), 'file')} that are copies of others were left out"] if copies else []
    notes += identity_notes(kept)
    images = [image for header in kept for image in header.split()]
    try:
        _check_pixels(kept)
        parts = split_planes(_planes(images))
    except RefusalError as error:
        return [_candidate(images, None, error, notes)], copies
    candidates = []
    for part in parts:
        of_part = [images[index] for index in part.indices]
        candidates.append(_part_candidate(of_part, part, len(parts), notes))
    return candidates, copies


def _part_candidate(images: list[Header], part: Part, parts: int, notes: list[str]) -> Candidate:
    said = [f"one of {parts} volumes in its series, told apart by {', '.join(part.attributes)}"] if parts > 1 else []
    refused: RefusalError | None = part.refused
    geometry = None
    if images[0].rows_reversed:
        said.append("GE's epi_pepolar stored the rows upside down under an unchanged header; they are put upright")
    if part.stack is not None:
        geometry = part.stack.geometry
        said += [*part.stack.notes, *_hints(images, whole=parts == 1)]
        if part.stack.tilt_degrees:
            refused = GeometryError(
                f"the slices are stacked {part.stack.tilt_degrees:.1f} degrees off their normal (gantry tilt);"
                " --resample-tilt puts them onto a straight grid",
                code="tilted",
            )
    return _candidate(images, geometry, refused, [*notes, *said], part.names)


def _candidate(
    images: Sequence[Header],
    geometry: Geometry | None,
    refused: RefusalError | None,
    notes: list[str],
    names: Sequence[str] = (),
) -> Candidate:
    first = images[0]
    modality = canonical_modality(first.text("Modality")) or modality_of(first.sop_class_uid)
    number = first.integer("SeriesNumber")
    description = first.text("SeriesDescription")
    series_uid = first.text("SeriesInstanceUID")
    paths = tuple(dict.fromkeys(image.path for image in images))
    parts = (
        safe_name(modality or ""),
        "x" if number is None else str(number),
        safe_name(description, DESCRIPTION_LENGTH),
        digest8([series_uid] if series_uid else sorted(_instance_ids(images))),
        *(safe_name(name, DESCRIPTION_LENGTH) for name in names),
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
        notes=(*notes, *(pet_notes(paths[0]) if modality == "PT" else ())),
        study_uid=first.text("StudyInstanceUID") or None,
        frame_of_reference_uid=first.text("FrameOfReferenceUID") or None,
        sequence=" ".join(filter(None, (first.text(keyword) for keyword in SEQUENCE))),
        slices=tuple((image.path, image.frame or 0) for image in images),
        reader=read,
    )


def scattered(groups: Sequence[list[Header]]) -> tuple[list[list[Header]], list[Candidate]]:
    """Part the series from single images that would be one, had each not been given another UID or patient.

    Anonymisers do that where they treat each file by itself. Geometry proves it: together they make one volume.

    Returns
    -------
    series : list of list of Header
        The other groups.
    refused : list of Candidate
        One for the images of a folder.
    """
    alone: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    for images in groups:
        if len(images) == 1 and not images[0].frames:
            alone[images[0].path.parent, *map(images[0].text, _ALIKE)].append(images[0])
    refused: dict[int, Candidate] = {}
    for images in alone.values():
        differ = [keyword for keyword in _OWN if len({image.text(keyword) for image in images}) > 1]
        if len(images) < SCATTERED or not differ:
            continue
        same = {keyword: images[0].text(keyword) for keyword in _OWN}
        together = describe([replace(image, values={**image.values, **same}) for image in images])[0]
        if len(together) == 1 and together[0].usable:
            reason = (
                f"{len(images)} images that make one volume, each with {' and '.join(differ)} of its own, as"
                " anonymisers write that treat each file by itself; anonymise the series anew, so that its images share"
                " these"
            )
            one = replace(together[0], usable=False, reason=reason, code="not-3d", notes=())
            refused |= {id(image): one for image in images}
    others = [images for images in groups if id(images[0]) not in refused]
    return others, list({id(candidate): candidate for candidate in refused.values()}.values())


def _instance_ids(images: Sequence[Header]) -> list[str]:
    """SOP instance UIDs, or where there are none at all, what the files hold."""
    return [image.sop_instance_uid or hashlib.sha256(archive.read_bytes(image.path)).hexdigest() for image in images]


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Ignored]]:
    """Leave out files that hold the same image as another of the same instance UID."""
    kept: list[Header] = []
    copies: list[Ignored] = []
    seen: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda header: header.path):
        alike = seen[header.sop_instance_uid, header.text("ImagePositionPatient")]
        original = next((other for other in alike if same_image(other, header)), None)
        if original is None:
            alike.append(header)
            kept.append(header)
        else:
            copies.append(Ignored(header.path, f"a copy of {original.path.name}"))
    return kept, copies


def _check_pixels(headers: Sequence[Header]) -> None:
    """Refuse what makes no volume, whatever its geometry."""
    # The images of a series mostly say the same of their pixels: the first of each kind answers for the others.
    kinds = {tuple(map(header.values.get, _PIXELS)): header for header in reversed(headers)}
    odd = [
        header for header in headers if header.problem or header.frames or header.mosaic or header.rows_reversed is None
    ]
    for header in sorted({id(header): header for header in (*kinds.values(), *odd)}.values(), key=lambda h: h.path):
        name = header.path.name
        kind = class_name(header.sop_class_uid)
        if is_projection(header.sop_class_uid):
            raise GeometryError(f"{name}: an image in projection ({kind}), no slice of a volume", code="not-3d")
        if (header.integer("SamplesPerPixel") or 1) != 1 or not (
            header.text("PhotometricInterpretation") or "MONOCHROME2"
        ).startswith("MONOCHROME"):
            raise InputError(f"{name}: colour pixels; a scan has one number a voxel", code="not-scalar")
        if header.problem:
            raise InputError(f"{name}: {header.problem}", code="unreadable")
        if is_ultrasound(header.sop_class_uid):
            raise InputError(f"{name}: ultrasound, which has no grid in the patient", code="unsupported")
        if header.frames and not any(header.frames):
            raise InputError(
                f"{name}: {kind} of {len(header.frames)} frames without a position each; convert it to one file"
                " a slice",
                code="unsupported",
            )
        if header.mosaic:
            _check_mosaic(header)
        if header.rows_reversed is None:
            raise GeometryError(
                f"{name}: GE's epi_pepolar stores the rows of some volumes upside down, and the header doesn't say"
                " whether of this one (private element 0019,10B3 and TemporalPositionIdentifier); export the series"
                " anew with these",
                code="missing-geometry",
            )
        try:
            Layout.of(header)
        except InputError as error:
            raise InputError(f"{name}: {error.reason}", code=error.code) from error
        if header.text("ModalityLUTSequence"):
            raise InputError(f"{name}: values through a modality look-up table", code="unsupported")
        if (why := refused_syntax(header.transfer_syntax)) is not None:
            raise InputError(f"{name}: {why}", code="unsupported")


def _shown(paths: Set[Path]) -> dict[Path, str]:
    """What to call files: by their names, with their folders where several are called alike."""
    if len({path.name for path in paths}) == len(paths):
        return {path: path.name for path in paths}
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return {path: relative(path, common) for path in paths}


def _check_mosaic(header: Header) -> None:
    if header.frames:
        raise InputError(f"{header.path.name}: a mosaic of several frames; convert it", code="unsupported")
    try:
        tiles(header.values)
    except GeometryError as error:
        raise GeometryError(f"{header.path.name}: {error.reason}", code=error.code) from error


def _planes(images: Sequence[Header]) -> list[Plane]:
    planes = []
    shown = _shown({header.path for header in images})
    for header in images:
        position = header.numbers("ImagePositionPatient", 3)
        directions = header.numbers("ImageOrientationPatient", 6)
        spacing = header.numbers("PixelSpacing", 2)
        rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
        file = shown[header.path]
        name = file if header.frame is None else f"frame {header.frame + 1} of {file}"
        given = {
            "ImagePositionPatient": position,
            "ImageOrientationPatient": directions,
            "PixelSpacing": spacing if spacing and min(spacing) > 0 else None,
        }
        if position is None or directions is None or given["PixelSpacing"] is None or spacing is None:
            absent = " and no ".join(keyword for keyword, value in given.items() if value is None)
            raise GeometryError(
                f"{name} has no valid {absent}; export the series anew from its source",
                code="missing-geometry",
            )
        if not max(map(abs, (*position, *directions, *spacing))) < FARTHEST_MM:
            # Before anything is computed with them: squares would be infinite.
            raise GeometryError(
                f"{name}: position, orientation or pixel spacing beyond 1000 km; export the series anew from its"
                " source",
                code="bad-affine",
            )
        planes.append(
            Plane(
                name=name,
                position=position,
                row=directions[:3],
                column=directions[3:],
                spacing_mm=(spacing[1], spacing[0]),
                size=(columns, rows),
                frame=header.text("FrameOfReferenceUID"),
                tags=_tags(header),
            )
        )
    return planes


def _tags(image: Header) -> dict[str, str]:
    values = image.values
    tags = {keyword: _comparable(values[keyword]) for keyword in DISTINGUISHING if keyword in values}
    if component := _component(image):
        tags["ComplexImageComponent"] = component
    return tags


@lru_cache(maxsize=1 << 12)
def _comparable(text: str) -> str:
    """`text`, or the number that it is: 4.60 and 4.6 are one echo time."""
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.15g}" if math.isfinite(number) else text


def _component(image: Header) -> str:
    """Magnitude, phase, real or imaginary part: of an MR image, which the third value of its type may say as well."""
    said = image.text("ComplexImageComponent")
    third = (image.text("ImageType").upper().split("\\") + [""] * 3)[2].split("_")[0]
    return said or (third if third in ("M", "P", "R", "I") else "")


def _hints(headers: Sequence[Header], *, whole: bool) -> list[str]:
    """Notes where the files hint at slices that are absent at an end, which geometry can't show.

    Parameters
    ----------
    whole
        Whether these are all images of the series: only then do its numbers say something of them.
    """
    notes = []
    if any(header.text("PhotometricInterpretation") == "MONOCHROME1" for header in headers):
        notes.append("MONOCHROME1: low values are shown bright; the values are kept as stored")
    if not whole or headers[0].frame is not None:
        return notes
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
    return notes


def identity_notes(headers: Sequence[Header]) -> list[str]:
    """The note to give where UIDs are blank."""
    blank = sorted({keyword for header in headers for keyword in header.blank_identity}, key=IDENTITY.index)
    if not blank:
        return []
    kept = all(header.text("MediaStorageSOPInstanceUID") for header in headers)
    held = "; class and instance are taken from the file meta information" if kept and "SOPInstanceUID" in blank else ""
    return [f"blank in the files: {', '.join(blank)}{held}. DICOM objects can't refer to such a series (--repair-uids)"]
