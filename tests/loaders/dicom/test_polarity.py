"""GE's epi_pepolar: volumes whose rows are stored upside down under an unchanged header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset

from tests.helpers.dicom_files import Array, lps_affine, rotation, write_series
from tests.helpers.dicom_scanners import coded, private
from volseg.errors import ExportError
from volseg.export.dicom_source import read_headers
from volseg.geometry import ras_from_lps
from volseg.loaders import find
from volseg.volume import LabelVolume

SHAPE = (9, 8, 4)
AFFINE = lps_affine(directions=rotation(10, 5, -20))


def write(
    folder: Path, code: int | None, times: int, flipped: set[int], *, sequence: str = "research/ABCD/epi_pepolar"
) -> None:
    """Time points from 1; the rows of those in `flipped` are stored from the last to the first."""
    for time in range(1, times + 1):

        def edit(dataset: Dataset, index: int, time: int = time) -> None:
            dataset.SeriesInstanceUID = "1.2.3"
            dataset.TemporalPositionIdentifier = time
            private(dataset, "GEMS_ACQU_01", {0x0019109C: ("LO", sequence)})
            if code is not None:
                private(dataset, "GEMS_ACQU_01", {0x001910B3: ("DS", f"{code}.0000")})

        stored: Array = coded(SHAPE, time)[:, ::-1] if time in flipped else coded(SHAPE, time)
        write_series(folder, stored, AFFINE, seed=f"time {time}", edit=edit, name=f"{time}-{{}}.dcm".format)


@pytest.mark.parametrize(("code", "flipped"), [(0, set()), (1, {1, 2, 3, 4}), (2, {1, 3}), (3, {2, 4})])
def test_volumes_are_put_upright(tmp_path: Path, code: int, flipped: set[int]) -> None:
    write(tmp_path, code, 4, flipped)
    found = find(tmp_path).candidates
    assert [candidate.name.rsplit("-", 1)[1] for candidate in found] == ["t1", "t2", "t3", "t4"]
    for time, candidate in enumerate(found, start=1):
        assert any("upside down" in note for note in candidate.notes) == (time in flipped)
        volume = candidate.load()
        assert_array_equal(volume.array, coded(SHAPE, time))
        assert_allclose(volume.geometry.affine, ras_from_lps(AFFINE), atol=1e-6)


def test_other_sequences_are_as_stored(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, set(), sequence="epi2")
    (candidate,) = find(tmp_path).candidates
    assert_array_equal(candidate.load().array, coded(SHAPE, 1))


@pytest.mark.parametrize("code", [None, 4, -1])
def test_an_unknown_polarity_is_refused(tmp_path: Path, code: int | None) -> None:
    write(tmp_path, code, 2, set())
    assert {candidate.code for candidate in find(tmp_path).candidates} == {"missing-geometry"}


def test_every_other_volume_of_unknown_number_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 2, 1, {1})
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.TemporalPositionIdentifier
        dataset.save_as(path)
    (candidate,) = find(tmp_path).candidates
    assert candidate.code == "missing-geometry"
    assert "0019,10B3" in (candidate.reason or "")


def test_no_object_refers_to_pixels_that_are_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "series", 1, 1, {1})
    volume = find(tmp_path / "series").candidates[0].load()
    mask = LabelVolume(np.zeros(SHAPE, np.uint8), volume.geometry, (), volume.source)
    with pytest.raises(ExportError) as error:
        read_headers(mask, tmp_path / "mask.dcm")
    assert error.value.code == "format"
