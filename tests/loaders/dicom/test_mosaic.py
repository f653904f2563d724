"""Mosaics of Siemens and UIH: every slice at its place, held against nibabel's reader, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.helpers.dicom_files import Array, lps_affine, rotation
from tests.helpers.dicom_objects import save
from tests.helpers.dicom_scanners import coded, csa, private, siemens_mosaic, uih_mosaic
from volseg.geometry import ras_from_lps
from volseg.loaders import Candidate, find
from volseg.loaders.dicom.csa import csa_values

with warnings.catch_warnings():
    # It says of itself that it is for Siemens' series alone.
    warnings.simplefilter("ignore")
    from nibabel.nicom import csareader, dicomwrappers

SHAPE = (10, 8, 5)


def only(path: Path) -> Candidate:
    (candidate,) = find(path).candidates
    return candidate


def expected(array: Array, affine: Array) -> tuple[Array, Array]:
    """The volume with slices ascending along row x column, as volseg has them."""
    if np.linalg.det(affine[:3, :3]) > 0:
        return array, affine
    turned = affine.copy()
    turned[:3, 3] += affine[:3, 2] * (array.shape[2] - 1)
    turned[:3, 2] *= -1
    return array[:, :, ::-1], turned


def against(affine: Array) -> Array:
    """The same slices' grid with the tiles against row x column."""
    turned = affine.copy()
    turned[:3, 2] *= -1
    return turned


@pytest.mark.parametrize("count", [1 + 1, 3, 4, 5, 9, 10])
@pytest.mark.parametrize("way", [lambda affine: affine, against])
@pytest.mark.parametrize("directions", [np.eye(3), rotation(20, -10, 5), rotation(90, 0, 0), rotation(90, 0, 90)])
def test_siemens(tmp_path: Path, count: int, way: Callable[[Array], Array], directions: Array) -> None:
    array = coded((10, 8, count))
    affine = way(lps_affine(directions=directions))
    candidate = only(save(siemens_mosaic(array, affine), tmp_path / "one.dcm"))
    assert candidate.usable, candidate.reason
    volume = candidate.load()
    voxels, place = expected(array, affine)
    assert_array_equal(volume.array, voxels)
    assert_allclose(volume.geometry.affine, ras_from_lps(place), atol=1e-5)


@pytest.mark.parametrize("way", [lambda affine: affine, against])
def test_siemens_as_nibabel_has_it(tmp_path: Path, way: Callable[[Array], Array]) -> None:
    path = save(siemens_mosaic(coded(SHAPE), way(lps_affine(directions=rotation(20, -10, 5)))), tmp_path / "one.dcm")
    theirs = dicomwrappers.wrapper_from_file(path)
    ours = only(path).load()
    places = {}
    for index in np.ndindex(theirs.image_shape):
        places[int(theirs.get_data()[index])] = ras_from_lps((theirs.affine @ [*index, 1])[:3])
    for index in np.ndindex(ours.geometry.shape):
        assert_allclose(ours.geometry.voxel_to_world(index), places[int(ours.array[index])], atol=1e-4)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_each_file_is_a_volume(tmp_path: Path, syntax: Any) -> None:
    for time in range(3):
        save(siemens_mosaic(coded(SHAPE, time), lps_affine(), time=time), tmp_path / f"{time}.dcm", syntax)
    found = find(tmp_path).candidates
    assert [candidate.name.rsplit("-", 1)[1] for candidate in found] == ["acq1", "acq2", "acq3"]
    for time, candidate in enumerate(found):
        assert_array_equal(candidate.load().array, coded(SHAPE, time))


@pytest.mark.parametrize("directions", [np.eye(3), rotation(20, -10, 5)])
def test_uih(tmp_path: Path, directions: Array) -> None:
    affine = lps_affine(directions=directions)
    candidate = only(save(uih_mosaic(coded(SHAPE), affine), tmp_path / "one.dcm"))
    assert candidate.usable, candidate.reason
    assert_array_equal(candidate.load().array, coded(SHAPE))
    assert candidate.geometry is not None
    assert_allclose(candidate.geometry.affine, ras_from_lps(affine), atol=1e-5)


def without(*tags: int) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for tag in tags:
            del dataset[tag]

    return change


def other_csa(**entries: Any) -> Callable[[Dataset], None]:
    return lambda dataset: private(dataset, "SIEMENS CSA HEADER", {0x00291010: ("OB", csa(**entries))})


def odd_size(dataset: Dataset) -> None:
    dataset.Columns, dataset.Rows = dataset.Columns * dataset.Rows // 8, 8


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without(0x00291010), "SliceNormalVector"),
        (other_csa(NumberOfImagesInMosaic=[5]), "SliceNormalVector"),
        (other_csa(SliceNormalVector=["1", "0", "0"]), "SliceNormalVector"),
        (other_csa(SliceNormalVector=["0", "x", "0"]), "SliceNormalVector"),
        (without(0x00180088), "spacing between slices"),
        (without(0x00200032), "position"),
        (lambda dataset: private(dataset, "SIEMENS MR HEADER", {0x0019100A: ("US", 17)}), "no 5 x 5 tiles"),
    ],
)
def test_what_the_header_must_say(tmp_path: Path, change: Callable[[Dataset], None], why: str) -> None:
    dataset = siemens_mosaic(coded(SHAPE), lps_affine())
    change(dataset)
    candidate = only(save(dataset, tmp_path / "one.dcm"))
    assert candidate.code == "missing-geometry"
    assert why in (candidate.reason or "")


def test_the_count_of_the_csa_header_serves_as_well(tmp_path: Path) -> None:
    dataset = siemens_mosaic(coded(SHAPE), lps_affine())
    del dataset[0x0019100A]
    assert_array_equal(only(save(dataset, tmp_path / "one.dcm")).load().array, coded(SHAPE))


@pytest.mark.parametrize("change", [without(0x00651051), without(0x00651050)])
def test_uih_without_its_positions(tmp_path: Path, change: Callable[[Dataset], None]) -> None:
    dataset = uih_mosaic(coded(SHAPE), lps_affine())
    change(dataset)
    assert only(save(dataset, tmp_path / "one.dcm")).code == "missing-geometry"


def test_csa_values_are_nibabels() -> None:
    raw = csa(One=["1.5", "-2.0"], Other=["7"], Empty=[], Last=[3])
    theirs = csareader.read(raw)["tags"]
    assert csa_values(raw, frozenset({"One", "Other", "Empty", "Last"})) == {
        "One": "1.5\\-2.0",
        "Other": "7",
        "Last": "3",
    }
    assert theirs["One"]["items"] == [1.5, -2]


@given(st.binary(max_size=40), st.integers(0, 400), st.binary(max_size=8))
def test_a_damaged_csa_header_says_nothing_or_what_it_holds(start: bytes, at: int, put: bytes) -> None:
    names = frozenset({"SliceNormalVector"})
    assert csa_values(start, names) == {}
    raw = csa(SliceNormalVector=["0", "0", "1"])
    assert set(csa_values(raw[:at] + put + raw[at + len(put) :], names)) <= names
    csa_values(raw[:at], names)
