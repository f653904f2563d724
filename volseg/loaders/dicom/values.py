"""The elements of a DICOM header that volseg looks at, as texts by keyword: the bytes, before anything judges them."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from volseg.loaders.dicom.private import PRIVATE_TAGS, private_values

#: What may tell images at one position apart, the most telling first.
DISTINGUISHING = (
    "StackID",
    "DiffusionBValue",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "FlipAngle",
    "KVP",
    "ImageType",
    "ComplexImageComponent",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "AcquisitionNumber",
    "ConvolutionKernel",
    "ASLContext",
    "VasCollapseFlag",
    "DiffusionGradientOrientation",
    "RTIATimer",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "SeriesDescription",
    "ImageComments",
    "InstanceNumber",
)
#: What tells which series of a study is which, beside its description.
SEQUENCE = ("ProtocolName", "SequenceName", "PulseSequenceName", "ScanningSequence", "SequenceVariant")
#: UIDs without which a DICOM object can't refer to a series.
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
#: What is read of a header.
KEYWORDS = (
    *DISTINGUISHING,
    *SEQUENCE,
    *IDENTITY,
    "SpecificCharacterSet",
    "PatientID",
    "Modality",
    "SeriesNumber",
    "ImagesInAcquisition",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "Units",
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
)

_TAGS = {tag: keyword for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}
#: Value representations, where a file doesn't say them; of two that are possible, the first.
_VRS = {tag: dictionary_VR(tag)[:2] for tag in _TAGS}
#: The sequences of functional groups, of all frames and of each.
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
WANTED = frozenset(_TAGS) | PRIVATE_TAGS | {SHARED_GROUPS, FRAME_GROUPS}
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
_SEQUENCES = frozenset(("ModalityLUTSequence", "SharedFunctionalGroupsSequence"))
_CHARSET = 0x00080005
#: Character set of a file that says none.
LATIN = ("iso8859",)
_EMPTY_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"


# Most texts are the same in all files of a series.
@lru_cache(maxsize=1 << 12)
def numbers(text: str, length: int) -> tuple[float, ...] | None:
    """`length` finite numbers that a text holds, separated by backslashes; else None."""
    try:
        found = tuple(float(item) for item in text.split("\\"))
    except ValueError:
        return None
    return found if len(found) == length and all(map(math.isfinite, found)) else None


def dataset_values(dataset: Dataset) -> dict[str, str]:
    """What `texts` gives, of a data set that pydicom read: by the bytes, before pydicom judges them."""
    elements: dict[int, tuple[str, bytes]] = {}
    read = {}
    meta = getattr(dataset, "file_meta", Dataset())
    for source in (meta, dataset):
        for tag in WANTED:
            if tag not in source:
                continue
            element = source.get_item(tag)
            if tag == _CHARSET and element is not None:
                # pydicom may have looked at it, to decode other values.
                said = element.value or b""
                elements[tag] = ("CS", said if isinstance(said, bytes) else _joined(said).encode("ascii", "replace"))
            elif isinstance(element, RawDataElement):
                elements[tag] = (element.VR or "", element.value or b"")
            elif element is not None and tag in _TAGS:
                # What pydicom had to look at for itself.
                value = element.value
                if element.VR == "SQ":
                    text = "1" if len(value) else ""
                else:
                    text = str(value or "") if element.VM < 2 else "\\".join(map(str, value))
                read[_TAGS[tag]] = text
    little = dataset.original_encoding[1] is not False
    return {keyword: text for keyword, text in (texts(elements, "<" if little else ">") | read).items() if text}


def texts(elements: Mapping[int, tuple[str, bytes]], order: str) -> dict[str, str]:
    """Texts by keyword, of elements given as value representation and bytes; blank ones are left out."""
    charset = _charset(elements.get(_CHARSET, ("", b""))[1])
    values = {}
    for tag, (vr, raw) in elements.items():
        keyword = _TAGS.get(tag)
        if keyword is None:
            continue
        if keyword in _SEQUENCES:
            text = "1" if raw and raw[:8] != _EMPTY_SEQUENCE else ""
        else:
            text = value_text(_VRS[tag] if vr in ("", "UN") else vr, raw, order, charset)
        if text:
            values[keyword] = text

    def private(vr: str, raw: bytes) -> str:
        return value_text(vr, raw, order, LATIN)

    mosaic = "MOSAIC" in values.get("ImageType", "").upper()
    # The standard elements come first.
    return {**private_values(elements, private, mosaic=mosaic), **values}


def _joined(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else "\\".join(value)


@lru_cache(maxsize=256)
def _charset(raw: bytes) -> tuple[str, ...]:
    said = raw.decode("ascii", "replace").strip(" \0")
    try:
        return tuple(convert_encodings(said.split("\\"))) if said else LATIN
    except LookupError:
        return LATIN


# Most values are the same in all files of a series.
@lru_cache(maxsize=1 << 14)
def value_text(vr: str, raw: bytes, order: str = "<", charset: tuple[str, ...] = LATIN) -> str:
    """Text of a value, given its value representation, bytes, their order, and the character sets of its file."""
    if vr in _BINARY:
        code = _BINARY[vr]
        size = struct.calcsize(order + code)
        numbers = struct.unpack(f"{order}{len(raw) // size}{code}", raw[: len(raw) // size * size])
        return "\\".join(f"{number:.17g}" if code in "fd" else str(number) for number in numbers)
    if raw.isascii() and b"\x1b" not in raw:
        text = raw.decode("ascii")
    else:
        try:
            text = decode_bytes(raw, list(charset), set())
        except (LookupError, UnicodeError):
            text = raw.decode("latin-1")
    text = text.strip(" \0")
    if not text.isprintable():
        # Reasons and names are one line, and nothing that a terminal obeys.
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return "\\".join([part.strip() for part in text.split("\\")]).strip("\\") if "\\" in text else text.strip()
