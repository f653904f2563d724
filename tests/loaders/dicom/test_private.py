"""What private elements of scanners tell apart, and what they mean nothing of without their creator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.helpers.dicom_files import write_series
from tests.helpers.dicom_scanners import coded, private
from volseg.loaders import Candidate, find

SHAPE = (9, 8, 4)
GE, GE_TIMES, GE_PARAMETERS = "GEMS_ACQU_01", "GEMS_RELA_01", "GEMS_PARM_01"
PHILIPS, PHILIPS_MR = "Philips Imaging DD 001", "Philips MR Imaging DD 001"


def two_volumes(
    folder: Path, creator: str, values: tuple[dict[int, tuple[str, Any]], ...], syntax: UID = ExplicitVRLittleEndian
) -> list[Candidate]:
    """Volumes of one series that differ in private elements alone."""
    for time, elements in enumerate(values):

        def edit(dataset: Dataset, index: int, time: int = time, elements: Any = elements) -> None:
            dataset.SeriesInstanceUID = "1.2.3"
            dataset.InstanceNumber = 1
            private(dataset, creator, elements)

        write_series(
            folder, coded(SHAPE, time), seed=f"time {time}", edit=edit, syntax=syntax, name=f"{time}-{{}}.dcm".format
        )
    return list(find(folder).candidates)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("creator", "values", "expected"),
    [
        (
            GE_PARAMETERS,
            ({0x00431039: ("IS", [0, 8, 0, 0])}, {0x00431039: ("IS", [1000000700, 8, 0, 0])}),
            ["b0", "b700"],
        ),
        (GE_PARAMETERS, ({0x00431030: ("SS", 3)}, {0x00431030: ("SS", 14)}), ["flag3", "flag14"]),
        (
            GE,
            tuple({0x001910BB: ("DS", x), 0x001910BC: ("DS", "0.5"), 0x001910BD: ("DS", "0")} for x in ("0.1", "0.2")),
            ["direction1", "direction2"],
        ),
        (PHILIPS, ({0x20011003: ("FL", 0.0)}, {0x20011003: ("FL", 1500.0)}), ["b0", "b1500"]),
        (
            PHILIPS_MR,
            tuple({0x200510B0: ("FL", x), 0x200510B1: ("FL", 0.5), 0x200510B2: ("FL", 0.0)} for x in (0.25, 0.5)),
            ["direction1", "direction2"],
        ),
    ],
)
def test_volumes_told_apart(tmp_path: Path, syntax: UID, creator: str, values: Any, expected: list[str]) -> None:
    found = {
        candidate.name.rsplit("-", 1)[1]: candidate for candidate in two_volumes(tmp_path, creator, values, syntax)
    }
    assert sorted(found) == sorted(expected)
    for time, name in enumerate(expected):
        assert_array_equal(found[name].load().array, coded(SHAPE, time))


def test_philips_labels(tmp_path: Path) -> None:
    def block(time: int) -> dict[int, tuple[str, Any]]:
        return {0x20051429: ("CS", ["CONTROL", "LABEL"][time])}

    for time in range(2):

        def edit(dataset: Dataset, index: int, time: int = time) -> None:
            dataset.SeriesInstanceUID = "1.2.3"
            dataset.InstanceNumber = 1
            # Its block is the fifth of Philips' in this group.
            dataset.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
            dataset.add_new(0x20051429, *block(time)[0x20051429])

        write_series(tmp_path, coded(SHAPE, time), seed=f"{time}", edit=edit, name=f"{time}-{{}}.dcm".format)
    found = find(tmp_path).candidates
    assert [candidate.name.rsplit("-", 1)[1] for candidate in found] == ["CONTROL", "LABEL"]
    assert_array_equal(found[1].load().array, coded(SHAPE, 1))


def test_ges_timer_orders_the_images_at_each_position(tmp_path: Path) -> None:
    for time in range(3):

        def edit(dataset: Dataset, index: int, time: int = time) -> None:
            dataset.SeriesInstanceUID = "1.2.3"
            dataset.InstanceNumber = 1
            private(dataset, GE_TIMES, {0x0021105E: ("DS", f"{1000 * time + 37.5 * (index % 2)}")})

        write_series(tmp_path, coded(SHAPE, time), seed=f"{time}", edit=edit, name=f"{time}-{{}}.dcm".format)
    found = find(tmp_path).candidates
    assert [candidate.name.rsplit("-", 1)[1] for candidate in found] == ["time1", "time2", "time3"]
    for time, candidate in enumerate(found):
        assert_array_equal(candidate.load().array, coded(SHAPE, time))


def test_the_same_element_of_another_creator_is_nothing(tmp_path: Path) -> None:
    values = ({0x00431030: ("SS", 3)}, {0x00431030: ("SS", 14)})
    (candidate,) = two_volumes(tmp_path, "SOMEBODY ELSE", values)
    assert candidate.code == "duplicate-slice"


def test_a_note_says_that_numbers_alone_tell_volumes_apart(tmp_path: Path) -> None:
    for time in range(2):

        def edit(dataset: Dataset, index: int, time: int = time) -> None:
            dataset.SeriesInstanceUID = "1.2.3"
            dataset.InstanceNumber = 1 + SHAPE[2] * time + index

        write_series(tmp_path, coded(SHAPE, time), seed=f"{time}", edit=edit, name=f"{time}-{{}}.dcm".format)
    for time, candidate in enumerate(find(tmp_path).candidates):
        assert any("told apart by the order of InstanceNumber alone" in note for note in candidate.notes)
        assert_array_equal(candidate.load().array, coded(SHAPE, time))
