"""Other people's readers fill an RTSTRUCT's contours: the voxels are the mask's, but for what docs/export.md says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from tests.conftest import ROOT
from tests.helpers.dciodvfy import findings
from tests.helpers.outlined_shapes import AXIAL, CORONAL, SAGITTAL, SHAPE, shapes
from tests.helpers.scans import LABELS, OBLIQUE, blobs, scan_from, write_series
from volseg.export import dicom_rtstruct
from volseg.volume import Label, LabelVolume

pytestmark = pytest.mark.readers

PYTHON = ROOT / ".venv-readers" / "bin" / "python"
PROGRAM = Path(__file__).with_name("programs") / "rtstruct.py"

Masks = dict[str, npt.NDArray[np.bool_]]


def read_by(reader: str, mask: LabelVolume, folder: Path) -> Masks:
    """Masks [i, j, k] by name, as a reader fills the contours that volseg writes."""
    assert PYTHON.exists(), f"{PYTHON} is absent; bash .ci/readers makes it"
    rtstruct, out = folder / "mask.rtstruct.dcm", folder / "out.npz"
    dicom_rtstruct.write(mask, rtstruct)
    subprocess.run([PYTHON, PROGRAM, reader, rtstruct, folder / "series", out], check=True, capture_output=True)
    return dict(np.load(out))


def on(folder: Path, array: npt.NDArray[np.uint8], orientation: tuple[float, ...], **changes: Any) -> LabelVolume:
    (folder / "series").mkdir()
    i, j, k = array.shape
    geometry, source = scan_from(write_series(folder / "series", (i, j, k), orientation, **changes))
    return LabelVolume(array, geometry, LABELS, source)


def assert_equal(found: Masks, mask: LabelVolume) -> None:
    occurring = [label for label in mask.labels if (mask.array == label.value).any()]
    assert sorted(found) == sorted(label.name for label in occurring)
    for label in occurring:
        np.testing.assert_array_equal(found[label.name], mask.array == label.value, err_msg=label.name)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
def test_dcmrtstruct2nii_is_exact(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    mask = on(tmp_path, shapes(), orientation)
    assert_equal(read_by("dcmrtstruct2nii", mask, tmp_path), mask)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_plastimatch_is_exact_where_slices_are_stacked_along_z(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    mask = on(tmp_path, shapes(), orientation)
    assert_equal(read_by("plastimatch", mask, tmp_path), mask)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
def test_rt_utils_on_square_images(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    # It takes rows for columns in what it makes of sizes and of spacings.
    array = np.pad(shapes(), ((0, 0), (0, SHAPE[0] - SHAPE[1]), (0, 0)))
    mask = on(tmp_path, array, orientation, PixelSpacing=[0.8, 0.8])
    assert_equal(read_by("rt_utils", mask, tmp_path), mask)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
def test_platipy_loses_voxels_of_the_border_alone(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    # On square images: it cuts others where x is beyond the number of rows.
    array = np.zeros((40, 40, 5), np.uint8)
    array[5:30, 4:24, 1:4] = 1
    array[12:20, 10:18, 2] = 0
    array[32:38, 25:29, 3] = 2
    mask = on(tmp_path, array, orientation)
    found = read_by("platipy", mask, tmp_path)
    for label in LABELS:
        there, seen = mask.array == label.value, found[label.name.replace("_", " ")]
        assert not (seen & ~there).any()
        lost = np.argwhere(ndimage.binary_erosion(there, np.ones((3, 3, 1), np.bool_)) & ~seen)
        # But for the row of the channel to the hole, on both sides of which it finds the outside.
        assert {tuple(place) for place in lost[:, 1:].tolist()} <= {(10, 2)}
        assert seen.any()


def many_labels() -> tuple[npt.NDArray[np.uint8], tuple[Label, ...]]:
    """118 labels that all touch, with jagged borders."""
    random = np.random.default_rng(0)
    seeds = np.zeros((64, 64, 12), np.uint8)
    places = random.permutation(seeds.size)[:118]
    seeds.flat[places] = np.arange(1, 119)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    labels = tuple(Label(value=v, name=f"structure {v}", colour=(v, 255 - v, 9)) for v in range(1, 119))
    return seeds[tuple(nearest)], labels


@pytest.mark.parametrize("reader", ["plastimatch", "dcmrtstruct2nii", "rt_utils"])
def test_118_labels(tmp_path: Path, reader: str) -> None:
    array, labels = many_labels()
    plain = on(tmp_path, array, AXIAL, PixelSpacing=[0.8, 0.8])
    mask = LabelVolume(array, plain.geometry, labels, plain.source)
    assert_equal(read_by(reader, mask, tmp_path), mask)


@pytest.mark.parametrize("holes", ["keyhole", "xor"])
def test_dciodvfy(tmp_path: Path, holes: dicom_rtstruct.Holes) -> None:
    mask = blobs(*scan_from(write_series(tmp_path)))
    dicom_rtstruct.write(mask, tmp_path / "mask.rtstruct.dcm", holes=holes)
    errors = findings(tmp_path / "mask.rtstruct.dcm", "RTStructureSet")
    # The checker is of 2022, and the value came after.
    assert [error for error in errors if "value = <CLOSEDPLANAR_XOR>" not in error] == []


def test_dciodvfy_of_real_series_and_of_an_empty_mask(shared_data: Path, tmp_path: Path) -> None:
    for series in ("12-T1post-05670", "13_HCropVolume"):
        mask = blobs(*scan_from((shared_data / "dicom/study1" / series).iterdir()))
        for array in (mask.array, np.zeros_like(mask.array)):
            dicom_rtstruct.write(mask.with_array(array), tmp_path / "m.dcm")
            assert findings(tmp_path / "m.dcm", "RTStructureSet") == []
