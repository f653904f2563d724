from __future__ import annotations

import csv
import re
from pathlib import Path

import pydicom
import pytest
from pydicom.sr.codedict import codes

import volseg.labels.dictionary
from tests.helpers.scans import blobs, scan_from, write_series
from volseg.export import dicom_seg
from volseg.labels.dictionary import term_of, with_codes
from volseg.volume import Code, Label

FILE = Path(volseg.labels.dictionary.__file__).with_name("dictionary.csv")
with FILE.open(encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "value", "modifier"),
    [
        ("liver", "10200004", None),
        ("Liver", "10200004", None),
        ("kidney_left", "64033007", "Left"),
        ("Left Kidney", "64033007", "Left"),
        ("kidney-R", "64033007", "Right"),
        ("kidney", "64033007", None),
        ("vertebrae_L1", "66794005", None),
        ("Left hippocampus", "5366008", "Left"),
        ("anterior hippocampus", "5366008", "Anterior"),
    ],
)
def test_known_names(name: str, value: str, modifier: str | None) -> None:
    term = term_of(name)
    assert term is not None
    assert (term.code.value, term.modifier and term.modifier.meaning) == (value, modifier)
    assert term.source


@pytest.mark.parametrize(
    "name", ["", "kidney transplant", "left", "liver 2", "Lésion", "no kidney", "vertebrae left 1", "lesion", "livers"]
)
def test_nothing_is_guessed(name: str) -> None:
    assert term_of(name) is None


def test_every_row_is_found_by_its_own_name_and_none_by_anothers() -> None:
    assert [term_of(row["name"]).name for row in ROWS] == [row["name"] for row in ROWS]  # type: ignore[union-attr]
    assert len(ROWS) > 240


def test_codes_are_well_formed_and_every_row_has_a_source() -> None:
    for row in ROWS:
        assert re.fullmatch(r"\d{6,16}", row["value"]), row
        assert row["scheme"] in ("SCT", "DCM"), row
        assert row["meaning"], row
        assert len(row["meaning"]) <= 64, row
        assert row["source"], row


def test_sides_are_those_of_the_names() -> None:
    for row in ROWS:
        words = row["name"].split("_")
        if row["modifier meaning"] in ("Left", "Right"):
            assert row["modifier meaning"].lower() in words, row


def test_brain_codes_are_pydicoms() -> None:
    theirs = {code.value for code in codes.cid7140.concepts.values()}
    ours = {row["value"] for row in ROWS if "CID 7140" in row["source"]}
    assert ours <= theirs


def test_a_labels_own_code_stays() -> None:
    own = Code(value="1", scheme="99X", meaning="mine")
    label = Label(value=1, name="liver", colour=(0, 0, 0), code=own)
    assert with_codes(label) is label
    found = with_codes(Label(value=1, name="kidney_left", colour=(0, 0, 0)))
    assert found.code is not None
    assert found.modifier is not None
    assert (found.code.value, found.modifier.value) == ("64033007", "7771000")


def test_a_seg_has_the_dictionarys_code(tmp_path: Path) -> None:
    labels = (Label(value=1, name="kidney_left", colour=(1, 2, 3)), Label(value=2, name="thing", colour=(1, 2, 3)))
    dicom_seg.write(blobs(*scan_from(write_series(tmp_path)), labels), tmp_path / "m.dcm")
    segments = pydicom.dcmread(tmp_path / "m.dcm").SegmentSequence
    first, second = (segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments)
    assert (first.CodeValue, first.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("64033007", "Left")
    assert second.CodingSchemeDesignator == "99VOLSEG"
