"""Private elements of scanners that volseg looks at: where they are, and under which keyword their values are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from volseg.loaders.dicom.csa import csa_values


@dataclass(frozen=True)
class Private:
    """One private element.

    Attributes
    ----------
    keyword
        The standard one that says the same, where there is one. Elements of one creator under one keyword are its
        values, in the order of their tags.
    creator
        Creator that reserves the block of the element.
    vr
        Value representation, where a file doesn't say it.
    """

    keyword: str
    creator: str
    vr: str


#: By tag, as dcm2niix's sources and the vendors' conformance statements have them.
PRIVATE: Mapping[int, Private] = {
    0x0019100A: Private("ImagesInMosaic", "SIEMENS MR HEADER", "US"),
    0x0019100C: Private("DiffusionBValue", "SIEMENS MR HEADER", "IS"),
    0x0019109C: Private("PulseSequence", "GEMS_ACQU_01", "LO"),
    0x001910B3: Private("ReversedPolarity", "GEMS_ACQU_01", "DS"),
    0x001910BB: Private("DiffusionGradientOrientation", "GEMS_ACQU_01", "DS"),
    0x001910BC: Private("DiffusionGradientOrientation", "GEMS_ACQU_01", "DS"),
    0x001910BD: Private("DiffusionGradientOrientation", "GEMS_ACQU_01", "DS"),
    0x0021105E: Private("RTIATimer", "GEMS_RELA_01", "DS"),
    0x00431030: Private("VasCollapseFlag", "GEMS_PARM_01", "SS"),
    0x00431039: Private("DiffusionBValue", "GEMS_PARM_01", "IS"),
    0x00651050: Private("ImagesInMosaic", "Image Private Header", "DS"),
    0x20011003: Private("DiffusionBValue", "Philips Imaging DD 001", "FL"),
    0x200510B0: Private("DiffusionGradientOrientation", "Philips MR Imaging DD 001", "FL"),
    0x200510B1: Private("DiffusionGradientOrientation", "Philips MR Imaging DD 001", "FL"),
    0x200510B2: Private("DiffusionGradientOrientation", "Philips MR Imaging DD 001", "FL"),
    0x20051429: Private("ASLContext", "Philips MR Imaging DD 005", "CS"),
}
#: Siemens' CSA header of an image, by tag; its block may come first or second in its group.
CSA_HEADERS = (0x00291010, 0x00291110)
_CSA_CREATOR = "SIEMENS CSA HEADER"
#: Its entries that count, and the keywords that their values are kept under.
_CSA_NAMES = {"NumberOfImagesInMosaic": "CSAImagesInMosaic", "SliceNormalVector": "SliceNormalVector"}
#: UIH's sequence of an item for each tile of a mosaic.
UIH_FRAMES = 0x00651051


def creator_of(tag: int) -> int:
    """Tag of the element that says who reserves the block of `tag`."""
    return tag & 0xFFFF0000 | (tag & 0xFF00) >> 8


#: What a header is searched for.
PRIVATE_TAGS = frozenset(
    tag for element in (*PRIVATE, *CSA_HEADERS, UIH_FRAMES) for tag in (element, creator_of(element))
)


def private_values(
    elements: Mapping[int, tuple[str, bytes]], text: Callable[[str, bytes], str], *, mosaic: bool
) -> dict[str, str]:
    """Texts by keyword of the private elements that are there.

    Parameters
    ----------
    elements
        Value representation and bytes, by tag.
    text
        Makes a text of these two.
    mosaic
        Whether the image says that it holds several slices.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for tag, private in PRIVATE.items():
        if tag in elements and _creator(elements, tag) == private.creator:
            vr, raw = elements[tag]
            found.setdefault((private.keyword, private.creator), []).append(
                text(private.vr if vr in ("", "UN") else vr, raw)
            )
    values: dict[str, str] = {}
    for (keyword, _), parts in found.items():
        if text_of_all := "\\".join(parts).strip("\\"):
            values.setdefault(keyword, text_of_all)
    if "DiffusionBValue" in values:
        values["DiffusionBValue"] = _b_value(values["DiffusionBValue"])
    # The header is long, and says something that counts of mosaics alone.
    return values | _csa_values(elements) if mosaic or "ImagesInMosaic" in values else values


def _creator(elements: Mapping[int, tuple[str, bytes]], tag: int) -> str:
    return elements.get(creator_of(tag), ("", b""))[1].decode("latin-1").strip(" \0")


def _b_value(text: str) -> str:
    """The first number; GE adds 1e9 to it."""
    first = text.split("\\")[0]
    return str(int(first) % 10**9) if first.isdigit() else first


def _csa_values(elements: Mapping[int, tuple[str, bytes]]) -> dict[str, str]:
    """What a CSA header says of a mosaic."""
    for tag in CSA_HEADERS:
        if tag in elements and _creator(elements, tag) == _CSA_CREATOR:
            return {
                _CSA_NAMES[name]: text for name, text in csa_values(elements[tag][1], frozenset(_CSA_NAMES)).items()
            }
    return {}
