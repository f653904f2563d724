"""The fast way to read a header gives what pydicom gives, or leaves the file to pydicom."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests.helpers.dicom_files import image, lps_affine, put, voxels, write_series
from volseg.loaders.dicom import header
from volseg.loaders.dicom.header import Header, read_header
from volseg.loaders.dicom.header_scan import FIRST_BYTES, scan
from volseg.loaders.dicom.quiet import quiet
from volseg.loaders.dicom.values import WANTED, texts


def both_ways(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What the scan and what pydicom's reading give."""
    size = path.stat().st_size
    with path.open("rb") as file:
        fast = header._scanned(path, file, size)
        slow = header._parsed(path, file, size)
    assert isinstance(fast, Header)
    assert isinstance(slow, Header)
    assert fast.problem == slow.problem
    return dict(fast.values), dict(slow.values)


def written(dataset: Dataset, *, implicit: bool = False) -> bytes:
    file = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_the_same_as_pydicom(tmp_path: Path, syntax: UID) -> None:
    for path in write_series(tmp_path, syntax=syntax):
        fast, slow = both_ways(path)
        assert fast == slow
        assert fast["PixelSpacing"] == "0.9\\0.7"
        assert fast["Rows"] == "4"
        assert fast["TransferSyntaxUID"] == syntax


def test_the_same_as_pydicom_on_real_files(shared_data: Path) -> None:
    paths = [path for path in (shared_data / "dicom").rglob("*") if path.is_file() and path.suffix != ".gz"]
    assert len(paths) > 100
    for path in paths:
        fast, slow = both_ways(path)
        assert fast == slow


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_left_to_pydicom(tmp_path: Path, syntax: UID) -> None:
    path, dataset = tmp_path / "x.dcm", image(voxels(), lps_affine(), 1)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    with path.open("rb") as file:
        assert scan(file, path.stat().st_size, WANTED) is None
    header = read_header(path)
    assert isinstance(header, Header)
    assert header.text("PixelSpacing") == "0.9\\0.7"


nested = st.recursive(
    st.builds(lambda text: [("LO", text)], st.text("ab", max_size=5)),
    lambda inner: st.builds(
        lambda items, undefined: [("SQ", items, undefined)], st.lists(inner, max_size=3), st.booleans()
    ),
    max_leaves=6,
)


def dataset_of(content: list[tuple]) -> Dataset:  # type: ignore[type-arg]
    dataset = Dataset()
    for kind, *value in content:
        if kind == "LO":
            dataset.add_new(0x00080070, "LO", value[0])
        else:
            sequence = Sequence([dataset_of(item) for item in value[0]])
            dataset.add_new(0x00081140, "SQ", sequence)
            dataset[0x00081140].is_undefined_length = value[1]
            for item in sequence:
                item.is_undefined_length_sequence_item = value[1]
    return dataset


@settings(max_examples=10)
@given(nested, st.binary(max_size=12).filter(lambda raw: len(raw) % 2 == 0), st.booleans())
def test_sequences_and_private_elements_are_passed_over(content: list[tuple], raw: bytes, implicit: bool) -> None:  # type: ignore[type-arg]
    dataset = image(voxels(), lps_affine(), 1)
    dataset.update(dataset_of(content))
    block = dataset.private_block(0x0009, "NOBODY", create=True)
    block.add_new(0x01, "OB" if raw else "UN", raw)
    block.add_new(0x02, "SQ", Sequence([dataset_of(content)]))
    data = written(dataset, implicit=implicit)
    found = scan(io.BytesIO(data), len(data), WANTED)
    assert found is not None
    values = texts(found.elements, "<")
    assert values["ImagePositionPatient"] == "-30.0\\12.0\\104.0"
    assert values["PixelRepresentation"] == "1"
    assert found.pixels == data.index(b"\xe0\x7f\x10\x00")


@pytest.mark.parametrize("length", [FIRST_BYTES - 400, FIRST_BYTES, 5 * FIRST_BYTES, 40 * FIRST_BYTES])
def test_a_long_header_is_read_on(tmp_path: Path, length: int) -> None:
    (path, *_) = write_series(tmp_path, edit=lambda dataset, _: dataset.add_new(0x00091010, "OB", b"x" * length))
    fast, slow = both_ways(path)
    assert fast == slow
    assert fast["Rows"] == "4"


def test_any_cut_or_changed_file_is_read_as_pydicom_would_or_left_to_it() -> None:
    data = written(image(voxels(), lps_affine(), 1))
    pixels = data.index(b"\xe0\x7f\x10\x00")
    for end in range(0, pixels + 4, 3):
        found = scan(io.BytesIO(data[:end]), end, WANTED)
        assert found is None or found.pixels is None or end >= pixels
    draw = random.Random(1)
    for _ in range(1000):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            changed[draw.randrange(132, len(changed))] = draw.randrange(256)
        scan(io.BytesIO(bytes(changed)), len(changed), WANTED)  # never an error


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("ISO_IR 100", "Schädel".encode("latin-1"), "Schädel"),
        ("ISO_IR 192", "頭部 µ".encode(), "頭部 µ"),
        ("\\ISO 2022 IR 87", b"\x1b$BF,It\x1b(B", "頭部"),
        ("GB18030", "头部".encode("gb18030"), "头部"),
        ("", b"caf\xe9", "café"),
        ("ISO_IR 999", b"plain", "plain"),
    ],
)
def test_texts_in_other_alphabets(charset: str, raw: bytes, text: str) -> None:
    elements = {0x00080005: ("CS", charset.encode()), 0x0008103E: ("LO", raw)}
    quiet()
    assert texts(elements, "<")["SeriesDescription"] == text


def test_binary_values_of_either_order() -> None:
    elements = {0x00280010: ("US", b"\x01\x02"), 0x00189087: ("FD", b"\x00\x00\x00\x00\x00\x40\x8f\x40")}
    assert texts(elements, "<") == {"Rows": "513", "DiffusionBValue": "1000"}
    assert texts({0x00280010: ("US", b"\x01\x02")}, ">") == {"Rows": "258"}


@pytest.mark.parametrize(
    ("creator", "element", "vr", "value", "expected"),
    [
        ("SIEMENS MR HEADER", 0x0019100C, "IS", "1000", "1000"),
        ("SIEMENS MR HEADER", 0x0019100C, "UN", b"50", "50"),
        ("GEMS_PARM_01", 0x00431039, "IS", ["1000000800", "0", "0", "0"], "800"),
        ("Philips Imaging DD 001", 0x20011003, "FL", 600.0, "600"),
        ("somebody else", 0x0019100C, "IS", "1000", ""),
    ],
)
def test_b_values_of_before_the_standard_element(
    tmp_path: Path, creator: str, element: int, vr: str, value: object, expected: str
) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.add_new((element >> 16 << 16) | 0x10, "LO", creator)
        dataset.add_new(element, vr, value)

    (path, *_) = write_series(tmp_path, edit=edit)
    fast, slow = both_ways(path)
    assert fast == slow
    assert fast.get("DiffusionBValue", "") == expected


def test_a_file_that_says_implicit_and_is_not(tmp_path: Path) -> None:
    (path, *_) = write_series(tmp_path, edit=put(SeriesDescription="x"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2\x00\x00\x00", 1))
    with path.open("rb") as file:
        assert scan(file, len(data), WANTED) is None
