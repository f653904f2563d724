from __future__ import annotations

import hashlib
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.helpers.dicom_files import rotation
from volseg.errors import InputError, RefusalError
from volseg.loaders import find
from volseg.loaders.formats import METAIMAGE
from volseg.volume import Volume

SHAPE = (5, 4, 3)
FIELDS: dict[str, str | None] = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "11 -7 5",
    "CenterOfRotation": "0 0 0",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "0.5 0.75 3",
    "DimSize": "5 4 3",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
#: Of `FIELDS`, to RAS: the first two rows of LPS with their signs changed.
AFFINE = np.array([[-0.5, 0, 0, -11], [0, -0.75, 0, 7], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def stored(array: Any) -> bytes:
    """Bytes of an array, its first axis fastest."""
    return bytes(array.tobytes(order="F"))


def header(**changes: str | None) -> bytes:
    """Header of `FIELDS` with changes (None leaves a field out); ElementDataFile stays the last."""
    fields = FIELDS | changes
    fields["ElementDataFile"] = fields.pop("ElementDataFile")
    return "".join(f"{name} = {value}\n" for name, value in fields.items() if value is not None).encode()


def write(path: Path, content: bytes | None = None, /, **changes: str | None) -> Path:
    path.write_bytes(header(**changes) + (stored(voxels()) if content is None else content))
    return path


def load(path: Path) -> Volume:
    candidate = METAIMAGE.describe(path)
    assert candidate.usable, candidate.reason
    volume = METAIMAGE.read(candidate)
    assert candidate.geometry is not None
    assert volume.geometry.difference(candidate.geometry, 0) is None
    return volume


def refused(path: Path) -> tuple[str, str]:
    candidate = METAIMAGE.describe(path)
    assert not candidate.usable
    assert "\n" not in str(candidate.reason)
    return str(candidate.code), str(candidate.reason)


def scan(dtype: int = SimpleITK.sitkInt16, directions: Any = None) -> Any:
    image = SimpleITK.GetImageFromArray(voxels().transpose(2, 1, 0))
    image.SetSpacing((0.5, 0.75, 3))
    image.SetOrigin((-120, 90, 33.25))
    image.SetDirection((np.eye(3) if directions is None else directions).ravel().tolist())
    return SimpleITK.Cast(image, dtype)


def assert_same_places(volume: Volume, image: Any) -> None:
    for index in [(0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2), (4, 3, 2)]:
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert_allclose(volume.geometry.voxel_to_world(index), point, atol=1e-9)


# what SimpleITK writes, and what it makes of headers written by hand


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "directions",
    [np.eye(3), np.diag([-1.0, 1, -1]), rotation(12, -31, 7), np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])],
)
def test_simpleitk_s_files(tmp_path: Path, suffix: str, compressed: bool, directions: Any) -> None:
    image = scan(directions=directions)
    SimpleITK.WriteImage(image, tmp_path / f"x{suffix}", compressed)
    volume = load(tmp_path / f"x{suffix}")
    assert_array_equal(volume.array, voxels())
    assert_same_places(volume, image)
    assert volume.source.notes == ()
    assert (volume.source.kind, volume.source.name) == ("metaimage", "x")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TransformMatrix": "0.8 0.1 0 -0.2 0.9 0.3 0.05 0 -1"},  # oblique, sheared, lengths other than 1
        {"TransformMatrix": "0 1 0 0 0 1 1 0 0", "CenterOfRotation": "3 9 27"},
        {"TransformMatrix": None, "Rotation": "0 1 0 0 0 1 1 0 0"},
        {"TransformMatrix": None, "Orientation": "0 1 0 0 0 1 1 0 0"},
        {"Offset": None, "Position": "1 2 3"},
        {"Offset": None, "Origin": "1 2 3"},
        {"ElementSize": "9 9 9"},
        {"ElementSpacing": None, "ElementSize": "2 3 4"},
        {"ElementSpacing": "-0.5 0.75 3"},
        {"AnatomicalOrientation": "LPS"},
        {"BinaryData": None},
        {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "False"},
        {"BinaryDataByteOrderMSB": "True"},
        {"CompressedData": None},
        {"HeaderSize": "-1"},
    ],
)
def test_simpleitk_understands_the_same(tmp_path: Path, changes: dict[str, str | None]) -> None:
    path = write(tmp_path / "x.mha", **changes)
    image = SimpleITK.ReadImage(path)
    volume = load(path)
    assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
    assert_same_places(volume, image)


@pytest.mark.parametrize("name", ["Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32"])
def test_types_stay(tmp_path: Path, name: str) -> None:
    SimpleITK.WriteImage(scan(getattr(SimpleITK, f"sitk{name}")), tmp_path / "x.mha")
    array = load(tmp_path / "x.mha").array
    assert array.dtype == np.dtype(name.lower())
    assert array.flags.writeable
    assert_array_equal(array, voxels())


def test_doubles_become_floats(tmp_path: Path) -> None:
    SimpleITK.WriteImage(scan(SimpleITK.sitkFloat64), tmp_path / "x.mha")
    assert load(tmp_path / "x.mha").array.dtype == np.float32


def test_a_fourth_axis_is_channels(tmp_path: Path) -> None:
    image = scan(directions=rotation(12, -31, 7))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image, image + 100]), tmp_path / "x.mha")
    volume = load(tmp_path / "x.mha")
    assert METAIMAGE.describe(tmp_path / "x.mha").channels == 2
    assert_array_equal(volume.array, [voxels(), voxels() + 100])
    assert_same_places(volume, image)
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image]), tmp_path / "one.mha")
    assert_array_equal(load(tmp_path / "one.mha").array, voxels())


def test_it_is_found_and_loaded_like_any_image(tmp_path: Path) -> None:
    SimpleITK.WriteImage(scan(), tmp_path / "x.mhd")
    (candidate,) = find(tmp_path).candidates
    assert (candidate.kind, candidate.path, candidate.usable) == ("metaimage", tmp_path / "x.mhd", True)
    assert_array_equal(candidate.load().array, voxels())


# geometry


def test_the_matrix_s_first_numbers_are_the_first_axis(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mha", TransformMatrix="0.8 0.6 0 -0.6 0.8 0 0 0.1 -1")
    volume = load(path)
    steps = np.array([[0.4, 0.3, 0], [-0.45, 0.6, 0], [0, 0.3, -3]])  # rows of the matrix times the spacing
    for index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (4, 3, 2)]:
        expected = (np.array([11, -7, 5]) + index[0] * steps[0] + index[1] * steps[1] + index[2] * steps[2]) * (
            -1,
            -1,
            1,
        )
        assert_allclose(volume.geometry.voxel_to_world(index), expected, atol=1e-12)
    assert "not perpendicular" in volume.source.notes[-1]


@pytest.mark.parametrize("field", ["TransformMatrix", "Offset", "ElementSpacing"])
def test_geometry_that_isn_t_stated_is_refused(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "x.mha", **{field: None})
    code, reason = refused(path)
    assert code == "missing-geometry"
    assert field.replace("Spacing", "S") in reason
    SimpleITK.ReadImage(path)  # takes something, and doesn't say what


def test_names_of_one_field_that_contradict_each_other(tmp_path: Path) -> None:
    code, reason = refused(write(tmp_path / "x.mha", Position="0 0 0"))
    assert code == "bad-affine"
    assert "Offset and Position" in reason
    assert_array_equal(load(write(tmp_path / "y.mha", Position="11 -7 5.0")).geometry.affine, AFFINE)


def test_another_anatomical_orientation_is_noted(tmp_path: Path) -> None:
    volume = load(write(tmp_path / "x.mha", AnatomicalOrientation="LAI"))
    assert_array_equal(volume.geometry.affine, AFFINE)
    assert "AnatomicalOrientation LAI and TransformMatrix (LPS) differ" in volume.source.notes[0]
    assert load(write(tmp_path / "y.mha", AnatomicalOrientation="???")).source.notes == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
        {"TransformMatrix": "1 0 0 0 1 0 1 1 0"},
        {"TransformMatrix": "nan 0 0 0 1 0 0 0 1"},
        {"TransformMatrix": "1e200 0 0 0 1 0 0 0 1"},
        {"Offset": "inf 0 0"},
        {"ElementSpacing": "0 1 1"},
        {"ElementSpacing": "1e300 1 1"},
        {"DistanceUnits": "cm"},
    ],
)
def test_an_affine_that_is_none(tmp_path: Path, changes: dict[str, str | None]) -> None:
    assert refused(write(tmp_path / "x.mha", **changes))[0] == "bad-affine"


def test_a_fourth_axis_that_leans_into_space(tmp_path: Path) -> None:
    changes: dict[str, str | None] = {
        "NDims": "4",
        "DimSize": "5 4 3 1",
        "Offset": "0 0 0 0",
        "ElementSpacing": "1 1 1 1",
    }
    matrix = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0.5 1"
    assert refused(write(tmp_path / "x.mha", **changes, TransformMatrix=matrix))[0] == "bad-affine"


# voxels


@pytest.mark.parametrize("channels", ["2", "3", "4"])
def test_several_numbers_a_voxel_are_refused(tmp_path: Path, channels: str) -> None:
    path = write(tmp_path / "x.mha", bytes(480), ElementNumberOfChannels=channels)
    assert refused(path)[0] == "not-scalar"
    assert load(write(tmp_path / "y.mha", ElementNumberOfChannels="1")).channels == 1


def test_what_has_no_three_axes_is_refused(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.Image(5, 4, SimpleITK.sitkInt16), tmp_path / "x.mha")
    assert refused(tmp_path / "x.mha")[0] == "not-3d"
    assert refused(write(tmp_path / "y.mha", DimSize="60 1 1"))[0] == "not-3d"


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("big", [False, True])
def test_both_byte_orders(tmp_path: Path, dtype: str, big: bool) -> None:
    names = {"i2": "SHORT", "u2": "USHORT", "i4": "LONG", "u4": "UINT", "i8": "LONG_LONG", "u8": "ULONG_LONG"}
    names |= {"f4": "FLOAT", "f8": "DOUBLE"}
    content = stored(voxels(dtype=(">" if big else "<") + dtype))
    path = write(tmp_path / "x.mha", content, ElementType=f"MET_{names[dtype]}", BinaryDataByteOrderMSB=str(big))
    array = load(path).array
    assert array.dtype.isnative
    assert_array_equal(array, voxels())


def test_a_byte_order_that_isn_t_stated_is_noted(tmp_path: Path) -> None:
    volume = load(write(tmp_path / "x.mha", BinaryDataByteOrderMSB=None))
    assert_array_equal(volume.array, voxels())
    assert "little endian" in volume.source.notes[0]
    single = write(tmp_path / "y.mha", stored(voxels(dtype="u1")), BinaryDataByteOrderMSB=None, ElementType="MET_UCHAR")
    assert load(single).source.notes == ()


def test_scaling_is_applied_and_noted(tmp_path: Path) -> None:
    scale: dict[str, str | None] = {"ElementToIntensityFunctionSlope": "0.5", "ElementToIntensityFunctionOffset": "-3"}
    volume = load(write(tmp_path / "x.mha", **scale))
    array: Any = volume.array
    assert_allclose(array, voxels() * 0.5 - 3)
    assert "0.5 x + -3" in volume.source.notes[0]


@pytest.mark.parametrize(("word", "modality"), [("CT", "CT"), ("MR", "MR"), ("UNKNOWN", None), ("OTHER", None)])
def test_modality(tmp_path: Path, word: str, modality: str | None) -> None:
    path = write(tmp_path / "x.mha", Modality=f"MET_MOD_{word}")
    assert METAIMAGE.describe(path).modality == modality
    assert load(path).source.modality == modality


@pytest.mark.parametrize("size", [True, False])
def test_compressed_by_zlib(tmp_path: Path, size: bool) -> None:
    packed = zlib.compress(stored(voxels()))
    length = str(len(packed)) if size else None
    path = write(tmp_path / "x.mha", packed, CompressedData="True", CompressedDataSize=length)
    volume = load(path)
    assert_array_equal(volume.array, voxels())
    assert volume.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_compressed_file(tmp_path: Path) -> None:
    # Long runs: more content waits in the decompressor than is asked for at a time.
    array = np.zeros((128, 128, 100), np.int16)
    array[3, 4, 99] = 7
    packed = zlib.compress(stored(array), 9)
    path = write(tmp_path / "x.mha", packed, CompressedData="True", DimSize="128 128 100")
    assert_array_equal(load(path).array, array)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_number(tmp_path: Path, bad: float) -> None:
    array = voxels(dtype=np.float32)
    array[1, 2, :2] = bad
    candidate = METAIMAGE.describe(write(tmp_path / "x.mha", stored(array), ElementType="MET_FLOAT"))
    with pytest.raises(InputError, match=r"x\.mha: 2 of 60 voxels") as caught:
        METAIMAGE.read(candidate)
    assert caught.value.code == "not-finite"


@pytest.mark.parametrize(
    "changes", [{"ElementType": "MET_OTHER"}, {"ElementType": None}, {"BinaryData": "False"}, {"ObjectType": "Tube"}]
)
def test_what_is_unsupported(tmp_path: Path, changes: dict[str, str | None]) -> None:
    assert refused(write(tmp_path / "x.mha", **changes))[0] == "unsupported"


# another file


def test_a_file_below_the_header_s_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my voxels.bin").write_bytes(b"junk" + stored(voxels()))
    path = write(tmp_path / "x.mhd", b"", ElementDataFile="sub\\my voxels.bin", HeaderSize="4")
    assert_array_equal(load(path).array, voxels())
    candidate = METAIMAGE.describe(path)
    assert (candidate.path, candidate.files) == (path, (tmp_path / "sub" / "my voxels.bin",))
    write(path, b"", ElementDataFile="sub/my voxels.bin", HeaderSize="-1")
    assert_array_equal(load(path).array, voxels())
    write(path, b"", ElementDataFile="sub/my voxels.bin")
    assert "4 bytes follow the voxels" in METAIMAGE.describe(path).notes[0]


@pytest.mark.parametrize("name", ["../x.raw", "sub/../../x.raw", "{0}/x.raw", "..\\x.raw", "C:\\x.raw"])
def test_a_file_elsewhere_is_never_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "x.raw").write_bytes(stored(voxels()))
    path = write(tmp_path / "in" / "x.mhd", b"", ElementDataFile=name.format(tmp_path))
    code, reason = refused(path)
    assert code == "unsupported"
    assert "outside" in reason


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "x%03d.raw 1 3 1"])
def test_many_files_are_unsupported(tmp_path: Path, name: str) -> None:
    code, reason = refused(write(tmp_path / "x.mhd", b"a.raw\nb.raw\n", ElementDataFile=name))
    assert code == "unsupported"
    assert "several files" in reason


def test_a_file_that_isn_t_there(tmp_path: Path) -> None:
    code, reason = refused(write(tmp_path / "x.mhd", b"", ElementDataFile="absent.raw"))
    assert code == "unreadable"
    assert "absent.raw" in reason


# damage


def test_cut_anywhere_is_unreadable(tmp_path: Path) -> None:
    content = stored(np.random.default_rng(1).integers(0, 999, SHAPE).astype(np.int16))
    packed = zlib.compress(content)
    compressed: dict[str, str | None] = {"CompressedData": "True", "CompressedDataSize": str(len(packed))}
    path = tmp_path / "x.mha"
    for raw in (header() + content, header(**compressed) + packed):
        for length in [*range(0, len(raw), 7), len(raw) - 1]:
            path.write_bytes(raw[:length])
            assert refused(path)[0] == "unreadable", length


def test_a_damaged_zlib_stream_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    packed = bytearray(zlib.compress(stored(voxels()), 0))
    for damaged, word in ((packed[:-9], "cut short"), (packed[:30] + b"\xff" + packed[31:], "damaged")):
        candidate = METAIMAGE.describe(write(tmp_path / "x.mha", bytes(damaged), CompressedData="True"))
        with pytest.raises(InputError, match=word) as caught:
            METAIMAGE.read(candidate)
        assert caught.value.code == "unreadable"


@pytest.mark.parametrize("compressed", ["False", "True"])
def test_a_promise_that_no_file_keeps(tmp_path: Path, compressed: str) -> None:
    packed = zlib.compress(bytes(1000))
    path = write(
        tmp_path / "x.mha", packed, DimSize="65535 65535 65535", ElementType="MET_DOUBLE", CompressedData=compressed
    )
    code, reason = refused(path)
    assert code == "unreadable"
    assert str(65535**3 * 8) in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"NDims": None},
        {"NDims": "x"},
        {"NDims": "1e300"},
        {"NDims": "3.5"},
        {"NDims": "nan"},
        {"DimSize": None},
        {"DimSize": "5 4"},
        {"DimSize": "5 4 0"},
        {"DimSize": "5 4 -3"},
        {"DimSize": "5 4 2.5"},
        {"DimSize": "5 4 inf"},
        {"Offset": "1 2"},
        {"Offset": "1 2 x"},
        {"TransformMatrix": "1 0 0 0"},
        {"HeaderSize": "99999999999"},
        {"ElementNumberOfChannels": "x"},
        {"ElementToIntensityFunctionSlope": "0"},
        {"ElementToIntensityFunctionOffset": "nan"},
        {"ElementDataFile": None},
    ],
)
def test_a_damaged_header(tmp_path: Path, changes: dict[str, str | None]) -> None:
    assert refused(write(tmp_path / "x.mha", **changes))[0] == "unreadable"


def test_no_header_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    for content in (b"", b"NRRD0004\n", bytes(500), b"\xff" * 500, b"NDims = 3\nNDims = 3\n"):
        path.write_bytes(content)
        assert refused(path)[0] == "unreadable"
    path.write_bytes((b" " * 99 + b"\n") * 20_000)
    assert "no end within" in refused(path)[1]


def test_names() -> None:
    assert METAIMAGE.claims(Path("a/X.MHA"))
    assert METAIMAGE.claims(Path("x.mhd"))
    assert not METAIMAGE.claims(Path("x.mhd.gz"))
    assert METAIMAGE.stem(Path("a/x.y.mha")) == "x.y"


WORDS = [
    " = ",
    "nan",
    "-1",
    "0",
    "1e999",
    "1e300",
    "99999999999999999999",
    "True",
    "\0",
    "²",
    "\n",
    "LIST",
    "MET_DOUBLE",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_a_mutated_header_is_never_a_crash(tmp_path: Path, data: Any) -> None:
    compressed = data.draw(st.booleans())
    extra: dict[str, str | None] = {
        "HeaderSize": "0",
        "ElementNumberOfChannels": "1",
        "ElementToIntensityFunctionSlope": "1",
    }
    raw = bytearray(header(CompressedData=str(compressed), **extra))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        stop = start + data.draw(st.integers(0, 6))
        raw[start:stop] = data.draw(st.binary(max_size=6) | st.sampled_from([word.encode() for word in WORDS]))
    content = stored(voxels())
    path = tmp_path / "x.mha"
    path.write_bytes(bytes(raw) + (zlib.compress(content) if compressed else content))
    candidate = METAIMAGE.describe(path)
    assert candidate.usable == (candidate.code is None)
    if candidate.usable:
        with suppress(RefusalError):
            assert METAIMAGE.read(candidate).array.nbytes <= 1032 * path.stat().st_size
