"""DICOM objects that say where structures are: telling them apart, and reading them whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from volseg.errors import GeometryError, InputError, VolsegError
from volseg.geometry import Floats
from volseg.loaders import archive
from volseg.loaders.dicom.header import element_text, is_dicom
from volseg.loaders.dicom.quiet import quiet
from volseg.volume import Code, Volume

Kind = Literal["seg", "rtstruct"]

_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_KINDS: dict[str, Kind] = {
    SegmentationStorage: "seg",
    _LABEL_MAP_SEGMENTATION: "seg",
    RTStructureSetStorage: "rtstruct",
}
_SOP_CLASS = 0x00080016
#: Where the class of an object is found, file meta information included.
_FIRST_BYTES = 1 << 16
_UNDEFINED = 0xFFFFFFFF


def kind_of(path: Path) -> Kind | None:
    """Whether a file is a DICOM SEG or RTSTRUCT, reading no further than to its class; None for anything else."""
    try:
        if not is_dicom(path):
            return None
        quiet()
        with archive.open_binary(path) as file:
            # From memory: pydicom would ask a file for the gigabytes that a damaged length claims.
            start = io.BytesIO(file.read(_FIRST_BYTES))
            header = pydicom.filereader.read_partial(start, lambda tag, _vr, _length: int(tag) > _SOP_CLASS, force=True)
            return _KINDS.get(element_text(header, "SOPClassUID"))
    except Exception:
        # Damaged or unreadable: whoever reads it as an image says why.
        return None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged object raises into ``unreadable``."""
    quiet()
    try:
        yield
    except VolsegError:
        raise
    except Exception as error:
        # pydicom parses as values are looked at, and raises what it stumbles over.
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"a damaged DICOM object ({why})", code="unreadable", path=path) from error


def read_object(path: Path) -> FileDataset:
    """Read a file, refusing one that is cut short; to be called within `reading`.

    pydicom gives the part that is there of an element that is cut short, without a word: a structure would lose
    contours.
    """
    dataset = pydicom.dcmread(io.BytesIO(archive.read_bytes(path)), force=True)
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if not isinstance(element, RawDataElement) or element.length == _UNDEFINED:
            continue
        if element.length != len(element.value or b""):
            raise InputError("the file is cut short; copy it again", code="unreadable", path=path)
    return dataset


def required(dataset: Dataset, keyword: str, path: Path) -> Any:
    """Value of an element without which the object says nothing."""
    value = dataset.get(keyword)
    if value is None:
        raise InputError(f"a damaged DICOM object (no {keyword})", code="unreadable", path=path)
    return value


def numbers(value: Any, length: int) -> Floats | None:
    """`length` finite numbers, or None."""
    if value is None:
        return None
    array = np.atleast_1d(np.array(value, dtype=np.float64))
    return array if array.shape == (length,) and np.isfinite(array).all() else None


def decimals(dataset: Dataset, keyword: str, path: Path) -> Floats:
    """Numbers of an element of decimal strings; pydicom makes an object of each, which takes ten times as long."""
    if keyword not in dataset:
        raise InputError(f"a damaged DICOM object (no {keyword})", code="unreadable", path=path)
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return np.atleast_1d(np.array(dataset[keyword].value, dtype=np.float64))
    return np.array((element.value or b"").rstrip(b" \0").split(b"\\")).astype(np.float64)


def code_of(dataset: Dataset, keyword: str) -> Code | None:
    """First item of a sequence of coded concepts."""
    items = dataset.get(keyword)
    if not items:
        return None
    value = next((text for key in ("CodeValue", "LongCodeValue", "URNCodeValue") if (text := _text(items[0], key))), "")
    scheme, meaning = _text(items[0], "CodingSchemeDesignator"), _text(items[0], "CodeMeaning")
    return Code(value=value, scheme=scheme, meaning=meaning) if value and meaning else None


def _text(dataset: Dataset, keyword: str) -> str:
    return element_text(dataset, keyword)


def check_frame(uid: str, image: Volume, path: Path) -> None:
    """Refuse an object in another frame of reference than the image's, where both are said."""
    ours = image.source.dicom.frame_of_reference_uid if image.source.dicom else ""
    if uid and ours and uid != ours:
        raise GeometryError(
            f"in the frame of reference {uid}, the image in {ours}: their positions can't be compared; give the"
            " image that it was made on",
            code="mixed-frame",
            path=path,
        )
