from __future__ import annotations

from typing import Literal

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from volseg.errors import ExportError, GeometryError, InputError
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry, ras_from_lps
from volseg.interop import (
    from_metatensor,
    from_nibabel,
    from_simpleitk,
    to_metatensor,
    to_nibabel,
    to_simpleitk,
)
from volseg.volume import Label, LabelVolume, NiftiSource, Source, Volume

SHAPE = (2, 3, 4)
TYPES = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)


def oblique(orientation: str = "RAS") -> Geometry:
    """Turned about two axes, anisotropic, then stored in `orientation`."""
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.9, 1.7, 3.1]
    affine[:3, 3] = [-11.5, 22.25, 1e3 / 3]
    axes = AxisMap.between("RAS", orientation)
    return Geometry(SHAPE, affine @ axes.matrix(SHAPE))


def volume_on(geometry: Geometry, channels: int = 0, dtype: type = np.int16) -> Volume:
    shape = (channels, *geometry.shape) if channels else geometry.shape
    return Volume(np.arange(np.prod(shape)).reshape(shape).astype(dtype), geometry)


def assert_same(found: Volume, expected: Volume) -> None:
    assert found.array.dtype == expected.array.dtype
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.geometry.affine, expected.geometry.affine, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_there_and_back_in_all_orientations(orientation: str, channels: int) -> None:
    volume = volume_on(oblique(orientation), channels)
    expected = volume.with_array(volume.array[0]) if channels == 1 else volume
    assert_same(from_nibabel(to_nibabel(volume)), expected)
    assert_same(from_simpleitk(to_simpleitk(volume)), expected)
    assert_same(from_metatensor(to_metatensor(volume)), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_there_and_back_in_all_types(dtype: type, order: Literal["<", ">"]) -> None:
    expected = volume_on(oblique("LPS"), dtype=dtype)
    volume = expected.with_array(expected.array.astype(np.dtype(dtype).newbyteorder(order)))
    assert_same(from_nibabel(to_nibabel(expected)), expected)
    np.testing.assert_array_equal(from_nibabel(to_nibabel(volume)).array, expected.array)
    assert_same(from_simpleitk(to_simpleitk(volume)), expected)
    assert_same(from_metatensor(to_metatensor(volume)), expected)


@given(index=st.tuples(*(st.floats(-20, 20) for _ in range(3))), orientation=st.sampled_from(ORIENTATIONS))
def test_simpleitk_puts_voxels_in_the_same_places(index: tuple[float, float, float], orientation: str) -> None:
    volume = volume_on(oblique(orientation))
    found = to_simpleitk(volume).TransformContinuousIndexToPhysicalPoint(index)
    np.testing.assert_allclose(ras_from_lps(found), volume.geometry.voxel_to_world(index), atol=1e-9)


def test_simpleitk_has_the_same_value_at_an_index() -> None:
    volume = volume_on(oblique("PIR"), channels=2)
    image = to_simpleitk(volume)
    assert image.GetSize() == SHAPE
    assert image[1, 2, 3] == tuple(volume.array[:, 1, 2, 3])


def test_simpleitk_resamples_onto_a_grid_as_if_it_were_its_own() -> None:
    # A left-handed grid must not be read as the right-handed one: moved onto itself, nothing changes.
    volume = volume_on(oblique("LAS"), dtype=np.float32)
    image = to_simpleitk(volume)
    assert np.linalg.det(np.array(image.GetDirection()).reshape(3, 3)) == pytest.approx(-1)
    same = SimpleITK.Resample(image, image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(same), volume.array.T)


def test_nibabel_has_channels_last_and_the_affine() -> None:
    volume = volume_on(oblique("SLP"), channels=3)
    image = to_nibabel(volume)
    assert image.shape == (*SHAPE, 3)
    assert np.asanyarray(image.dataobj)[1, 2, 0, 2] == volume.array[2, 1, 2, 0]
    assert image.affine.tolist() == volume.geometry.affine.tolist()


def test_nibabel_keeps_codes_units_and_a_differing_qform() -> None:
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), oblique().affine)
    image.set_sform(oblique().affine, 2)
    image.set_qform(oblique("LPS").affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    volume = from_nibabel(image)
    said = volume.source.nifti
    assert said is not None
    assert (said.sform_code, said.qform_code, said.units) == (2, 1, ("mm", "sec"))
    again = to_nibabel(volume)
    np.testing.assert_allclose(again.get_qform(coded=False), image.get_qform(), atol=1e-5)
    assert (int(again.header["sform_code"]), int(again.header["qform_code"])) == (2, 1)
    image.set_qform(oblique().affine, 1)
    assert from_nibabel(image).source.nifti == NiftiSource(sform_code=2, qform_code=1, units=("mm", "sec"))


def test_nibabel_scaling_is_applied() -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    loaded = nibabel.Nifti1Image.from_bytes(image.to_bytes())
    np.testing.assert_array_equal(from_nibabel(loaded).array, np.arange(24).reshape(SHAPE) * 0.5 - 3)


def test_other_formats_of_nibabel_have_no_codes() -> None:
    volume = from_nibabel(nibabel.MGHImage(np.zeros(SHAPE, np.float32), oblique().affine))
    assert volume.source.nifti is None


def test_label_volumes_go_too() -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 2, 3] = 4
    mask = LabelVolume(array, oblique("LPI"), (Label(value=4, name="x", colour=(0, 0, 0)),), Source())
    assert to_simpleitk(mask)[1, 2, 3] == 4
    assert np.asanyarray(to_nibabel(mask).dataobj)[1, 2, 3] == 4
    assert to_metatensor(mask)[0, 1, 2, 3].item() == 4


def test_metatensor_of_lps_space_is_turned() -> None:
    volume = volume_on(oblique())
    tensor = MetaTensor(
        torch.from_numpy(volume.array[None].copy()),
        affine=torch.tensor(ras_from_lps(volume.geometry.affine)),
        meta={"space": "LPS"},
    )
    assert_same(from_metatensor(tensor), volume)


def test_metatensor_does_not_share_the_voxels() -> None:
    volume = volume_on(oblique())
    to_metatensor(volume)[:] = 0
    assert volume.array.any()


def test_sheared_grids_are_not_simpleitks() -> None:
    sheared = oblique().affine @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    volume = volume_on(Geometry(SHAPE, sheared))
    with pytest.raises(GeometryError) as caught:
        to_simpleitk(volume)
    assert caught.value.code == "tilted"
    assert_same(from_nibabel(to_nibabel(volume)), volume)
    assert_same(from_metatensor(to_metatensor(volume)), volume)


def test_what_is_not_a_scan() -> None:
    with pytest.raises(GeometryError) as dimensions:
        from_nibabel(nibabel.Nifti1Image(np.zeros((2, 3), np.uint8), np.eye(4)))
    with pytest.raises(GeometryError) as itk_dimensions:
        from_simpleitk(SimpleITK.Image(2, 3, SimpleITK.sitkUInt8))
    with pytest.raises(GeometryError) as tensor_axes:
        from_metatensor(MetaTensor(torch.zeros(2, 3, 4)))
    assert {caught.value.code for caught in (dimensions, itk_dimensions, tensor_axes)} == {"not-3d"}
    with pytest.raises(InputError) as colour:
        from_nibabel(nibabel.Nifti1Image(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4)))
    with pytest.raises(InputError) as complex_voxels:
        from_simpleitk(SimpleITK.Image([2, 3, 4], SimpleITK.sitkComplexFloat32))
    assert {colour.value.code, complex_voxels.value.code} == {"not-scalar"}
    with pytest.raises(GeometryError) as singular:
        from_nibabel(nibabel.Spm99AnalyzeImage(np.zeros(SHAPE, np.float32), np.full((4, 4), np.nan)))
    assert singular.value.code == "bad-affine"


@pytest.mark.parametrize("dtype", [np.float16, bool])
def test_types_that_the_others_lack(dtype: type) -> None:
    volume = volume_on(oblique(), dtype=dtype)
    for convert in (to_nibabel, to_simpleitk):
        with pytest.raises(ExportError) as caught:
            convert(volume)
        assert caught.value.code == "format"
