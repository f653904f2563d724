"""What every DICOM object made from a mask has in common: what it takes over from its source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DA, TM

from volseg import __version__
from volseg.export.terms import SH_LENGTH, text
from volseg.volume import Code, LabelVolume


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


#: What else is the same for the whole study, where the source says it: whether it was de-identified, too.
_TAKEN_OVER = (
    "StudyInstanceUID",
    "StudyDescription",
    "PatientAge",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)


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
    for keyword in (*_TYPE_2, *_TAKEN_OVER):
        if keyword in header:
            setattr(dataset, keyword, header[keyword].value)
    return dataset


def coded(code: Code) -> Dataset:
    """A coded concept as an item of a code sequence."""
    item = Dataset()
    if len(code.value) > SH_LENGTH:
        item.LongCodeValue = code.value
    else:
        item.CodeValue = code.value
    item.CodingSchemeDesignator, item.CodeMeaning = code.scheme, text(code.meaning)
    return item


class Uids:
    """UIDs of what is made from a mask: the same mask of the same scan gets the same ones, so that it is stored once.

    The series' UID follows from the scan, its labels and what made the mask; the instance's from the voxels too, since
    another content may not have its UID.

    Parameters
    ----------
    mask
        Mask of a DICOM series.
    form
        Words for the kind of object and how it is written.
    """

    def __init__(self, mask: LabelVolume, *form: str) -> None:
        dicom = mask.source.dicom
        assert dicom is not None  # or it would have no headers
        images = (f"{instance.sop_instance_uid} {instance.frame}" for instance in dicom.instances)
        made = (mask.algorithm, repr(mask.labels), __version__, *form)
        self._seed = [dicom.study_uid, dicom.series_uid, *images, *made]
        voxels = hashlib.sha256()
        for array in (mask.array, *mask.layers):
            for slab in array.T:
                voxels.update(np.ascontiguousarray(slab).data)
        self._voxels = voxels.hexdigest()
        self.series = generate_uid(entropy_srcs=[*self._seed, "series"])
        self.instance = self.of("instance")

    def of(self, name: str) -> UID:
        """The UID of something else in the object, by a name for it."""
        return generate_uid(entropy_srcs=[*self._seed, self._voxels, name])
