"""Kinds of DICOM objects by their SOP class: which are scans, which are none, and what those refer to."""

from __future__ import annotations

from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.uid import UID

#: What the UIDs of storage classes start with.
STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Objects with pixels that are no scan, by the end of their UID or by what it starts with.
_PICTURES = {
    "7": "secondary capture (a screenshot)",
    "30": "parametric map",
    "66.4": "segmentation",
    "66.7": "segmentation",
    "481.2": "radiotherapy dose",
}
#: Objects without pixels: presentation states, raw data, registrations, reports, documents, structure sets, plans.
_NO_PICTURES = ("11", "66", "67", "88", "104", "481.3", "481.5", "481.8")
_DIRECTORY = "1.2.840.10008.1.3.10"
#: One plane, or a film of one: radiography, angiography, and what has no positions in the patient.
_PROJECTIONS = ("1", "12.1", "12.2", "481.1", "77")
_ULTRASOUND = ("3", "3.1", "6", "6.1", "6.2")
#: Modality by storage class, where the modality is blank.
_MODALITIES = {"2": "CT", "4": "MR", "128": "PT", "130": "PT"}
#: Sequences of thousands of items that refer to no series.
_LONG_SEQUENCES = frozenset(("PerFrameFunctionalGroupsSequence", "ROIContourSequence", "DirectoryRecordSequence"))


def _within(ending: str, kinds: tuple[str, ...]) -> bool:
    return any(ending == kind or ending.startswith(f"{kind}.") for kind in kinds)


@lru_cache(maxsize=256)
def class_name(sop_class_uid: str) -> str:
    """Name of a class, such as CT Image Storage; the UID itself where there is none."""
    return UID(sop_class_uid).name


@lru_cache(maxsize=256)
def kind_of_no_scan(sop_class_uid: str, image_type: str) -> str | None:
    """Say what an object is that is no scan, or None."""
    if sop_class_uid == _DIRECTORY:
        return "directory (DICOMDIR), an index of other files"
    if sop_class_uid.startswith(STORAGE):
        ending = sop_class_uid.removeprefix(STORAGE)
        for kind, name in _PICTURES.items():
            if _within(ending, (kind,)):
                return f"{name}, no scan"
        if _within(ending, _NO_PICTURES):
            return f"{class_name(sop_class_uid).removesuffix(' Storage')}, no image"
    return "localizer, no scan" if "LOCALIZER" in image_type.upper() else None


@lru_cache(maxsize=256)
def is_projection(sop_class_uid: str) -> bool:
    """Whether the images of a class show the patient in projection, or are photographs."""
    return sop_class_uid.startswith(STORAGE) and _within(sop_class_uid.removeprefix(STORAGE), _PROJECTIONS)


def is_ultrasound(sop_class_uid: str) -> bool:
    """Whether the class is ultrasound's."""
    return sop_class_uid.startswith(STORAGE) and sop_class_uid.removeprefix(STORAGE) in _ULTRASOUND


def modality_of(sop_class_uid: str) -> str | None:
    """Modality that a class implies, None where it implies none."""
    return _MODALITIES.get(sop_class_uid.removeprefix(STORAGE).split(".")[0])


def references(dataset: Dataset) -> tuple[str, ...]:
    """UIDs of the series that an object refers to, sorted."""
    own = str(dataset.get("SeriesInstanceUID", ""))
    found: set[str] = set()
    _collect(dataset, found, depth=0)
    return tuple(sorted(found - {own, ""}))


def _collect(dataset: Dataset, found: set[str], depth: int) -> None:
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # a value that pydicom stumbles over is no sequence
            continue
        if element.VR == "SQ" and element.keyword not in _LONG_SEQUENCES and depth < 8:
            for item in element.value:
                found.add(str(item.get("SeriesInstanceUID", "")))
                _collect(item, found, depth + 1)
