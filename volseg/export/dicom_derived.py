"""What every DICOM object made from a mask has in common: what it takes over from its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from volseg.export.terms import text
from volseg.volume import Code


def _sex(value: Any) -> None:
    if value not in ("M", "F", "O"):
        raise ValueError(value)


#: Attributes that must be there, if only empty (type 2), and what their values must pass.
_TYPE_2: dict[str, Callable[[Any], Any]] = {
    "PatientName": str,
    "PatientID": str,
    "PatientBirthDate": DA,
    "PatientSex": _sex,
    "StudyID": str,
    "StudyDate": DA,
    "StudyTime": TM,
    "AccessionNumber": str,
    "ReferringPhysicianName": str,
}


def series_number(header: Dataset, offset: int) -> int:
    """A number that sorts behind the study's own series and tells which of them it was made from.

    Parameters
    ----------
    header
        An image of the source.
    offset
        Thousands, by kind of object: what is made of one series has different numbers.
    """
    try:
        return max(offset + int(header.get("SeriesNumber") or 0), 1)
    except (TypeError, ValueError):
        return offset


def complete_identity(header: Dataset) -> tuple[str, ...]:
    """Make patient and study of a header what a derived object can take over, in memory.

    Returns
    -------
    tuple of str
        A note for each value that is left empty.
    """
    notes = []
    for keyword, parse in _TYPE_2.items():
        if keyword not in header:
            notes.append(f"{keyword} is absent in the source, and empty here")
        elif not _parses(header, keyword, parse):
            notes.append(f"{keyword} isn't valid in the source, and empty here")
        else:
            continue
        setattr(header, keyword, "" if parse is str else None)
    return tuple(notes)


def _parses(header: Dataset, keyword: str, parse: Callable[[Any], Any]) -> bool:
    try:
        value = header[keyword].value
        if value not in (None, ""):
            parse(value)
    except (TypeError, ValueError):
        return False
    return True


def derived_from(header: Dataset) -> Dataset:
    """A data set with the patient and the study of a header that `complete_identity` has seen, in UTF-8."""
    dataset = Dataset()
    # A label's name may need letters that the source's character set lacks.
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*_TYPE_2, "StudyInstanceUID", "StudyDescription", "PatientAge", "PatientWeight"):
        if keyword in header:
            setattr(dataset, keyword, header[keyword].value)
    return dataset


def coded(code: Code) -> Dataset:
    """A coded concept as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, text(code.meaning)
    return item
