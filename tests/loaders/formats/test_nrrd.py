from __future__ import annotations

import bz2
import gzip
import hashlib
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
from volseg.loaders.formats import NRRD
from volseg.volume import Volume

SHAPE = (5, 4, 3)
FIELDS: dict[str, str | None] = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "5 4 3",
    "space directions": "(0.5,0,0) (0,0.75,0) (0,0,3)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(11,-7,5)",
}
#: Of `FIELDS`, to RAS: the first two rows of LPS with their signs changed.
AFFINE = np.array([[-0.5, 0, 0, -11], [0, -0.75, 0, 7], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def stored(array: Any) -> bytes:
    """Bytes of an array, its first axis fastest."""
    return bytes(array.tobytes(order="F"))


def header(lines: str = "", **changes: str | None) -> bytes:
    """Header of `FIELDS` with changes (None leaves a field out; ``_`` stands for a space)."""
    fields = FIELDS | {name.replace("_", " "): value for name, value in changes.items()}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)
    return ("NRRD0004\n# a comment\n" + text + lines + "\n").encode()


def write(path: Path, content: bytes | None = None, lines: str = "", **changes: str | None) -> Path:
    path.write_bytes(header(lines, **changes) + (stored(voxels()) if content is None else content))
    return path


def load(path: Path) -> Volume:
    candidate = NRRD.describe(path)
    assert candidate.usable, candidate.reason
    volume = NRRD.read(candidate)
    assert candidate.geometry is not None
    assert volume.geometry.difference(candidate.geometry, 0) is None
    return volume


def refused(path: Path) -> tuple[str, str]:
    candidate = NRRD.describe(path)
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


# what SimpleITK writes


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
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
    assert (volume.source.kind, volume.source.name) == ("nrrd", "x")


@pytest.mark.parametrize("name", ["Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32"])
def test_types_stay(tmp_path: Path, name: str) -> None:
    SimpleITK.WriteImage(scan(getattr(SimpleITK, f"sitk{name}")), tmp_path / "x.nrrd")
    array = load(tmp_path / "x.nrrd").array
    assert array.dtype == np.dtype(name.lower())
    assert array.flags.writeable
    assert_array_equal(array, voxels())


def test_doubles_become_floats(tmp_path: Path) -> None:
    SimpleITK.WriteImage(scan(SimpleITK.sitkFloat64), tmp_path / "x.nrrd")
    assert load(tmp_path / "x.nrrd").array.dtype == np.float32


def test_components_are_channels(tmp_path: Path) -> None:
    image = scan()
    SimpleITK.WriteImage(SimpleITK.Compose(image, image + 100), tmp_path / "x.nrrd")
    volume = load(tmp_path / "x.nrrd")
    assert NRRD.describe(tmp_path / "x.nrrd").channels == 2
    assert_array_equal(volume.array, [voxels(), voxels() + 100])
    assert_same_places(volume, image)


def test_it_is_found_and_loaded_like_any_image(tmp_path: Path) -> None:
    SimpleITK.WriteImage(scan(), tmp_path / "x.nhdr")
    (candidate,) = find(tmp_path).candidates
    assert (candidate.kind, candidate.path, candidate.usable) == ("nrrd", tmp_path / "x.nhdr", True)
    assert_array_equal(candidate.load().array, voxels())


# geometry


def test_geometry_is_the_header_s(tmp_path: Path) -> None:
    assert_array_equal(load(write(tmp_path / "x.nrrd")).geometry.affine, AFFINE)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("Left-Anterior-Superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
    ],
)
def test_every_space_of_the_body(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    path = write(
        tmp_path / "x.nrrd",
        space=space,
        space_directions="(0.4,0.1,0) (-0.2,0.7,0.05) (0.3,0,-3)",  # oblique, sheared, left-handed
    )
    steps = np.array([[0.4, 0.1, 0], [-0.2, 0.7, 0.05], [0.3, 0, -3]])
    volume = load(path)
    for index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (4, 3, 2)]:
        expected = (np.array([11, -7, 5]) + index[0] * steps[0] + index[1] * steps[1] + index[2] * steps[2]) * signs
        assert_allclose(volume.geometry.voxel_to_world(index), expected, atol=1e-12)
    assert "not perpendicular" in volume.source.notes[0]


@pytest.mark.parametrize("centers", ["cell cell cell", "node node node"])
def test_centerings_and_measurement_frame_move_nothing(tmp_path: Path, centers: str) -> None:
    path = write(tmp_path / "x.nrrd", centerings=centers, measurement_frame="(0,1,0) (1,0,0) (0,0,1)")
    assert_array_equal(load(path).geometry.affine, AFFINE)


@pytest.mark.parametrize("field", ["space", "space_directions", "space_origin"])
def test_geometry_that_isn_t_stated_is_refused(tmp_path: Path, field: str) -> None:
    code, reason = refused(write(tmp_path / "x.nrrd", lines="spacings: 1 1 1\n", **{field: None}))
    assert code == "missing-geometry"
    assert repr(field.replace("_", " ")) in reason


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", "left-posterior-superior-time", "martian"])
def test_other_spaces_are_refused(tmp_path: Path, space: str) -> None:
    code, reason = refused(write(tmp_path / "x.nrrd", space=space))
    assert code == "missing-geometry"
    assert space in reason


def test_a_fourth_axis_in_space_is_refused(tmp_path: Path) -> None:
    image = scan()
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image, image]), tmp_path / "x.nrrd")  # doesn't state its space
    assert refused(tmp_path / "x.nrrd")[0] == "missing-geometry"
    path = write(
        tmp_path / "y.nrrd",
        stored(voxels((5, 4, 3, 2))),
        dimension="4",
        sizes="5 4 3 2",
        space_directions="(1,0,0) (0,1,0) (0,0,1) (1,1,1)",
        kinds=None,
    )
    assert refused(path)[0] == "bad-affine"


@pytest.mark.parametrize(
    "directions",
    [
        "(1,0,0) (0,1,0)",
        "(1,0,0) (0,1,0) (0,0,1) 7",
        "(1,0,0) (0,1,0) (0,0)",
        "(1,0,0) (0,1,0) (0,0,x)",
        "(1,0,0) (0,1,0) (0,0,0)",
        "(1,0,0) (0,1,0) (1,1,0)",
        "(1,0,0) (0,1,0) (0,0,nan)",
        "(1,0,0) (0,1,0) (0,0,inf)",
        "(1,0,0) (0,1,0) (0,0,1e300)",
        "(1,0,0) (0,1,0) ()",
    ],
)
def test_directions_that_are_none(tmp_path: Path, directions: str) -> None:
    assert refused(write(tmp_path / "x.nrrd", space_directions=directions))[0] == "bad-affine"


@pytest.mark.parametrize("units", ['"mm" "mm" "mm"', "mm mm mm", None])
def test_millimetres(tmp_path: Path, units: str | None) -> None:
    assert_array_equal(load(write(tmp_path / "x.nrrd", space_units=units)).geometry.affine, AFFINE)


def test_other_units_are_refused(tmp_path: Path) -> None:
    code, reason = refused(write(tmp_path / "x.nrrd", space_units='"cm" "cm" "cm"'))
    assert code == "bad-affine"
    assert "'cm'" in reason


# axes


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["list", "vector", "time", "???"])
def test_channels_come_to_the_front_from_anywhere(tmp_path: Path, place: int, kind: str) -> None:
    array = np.moveaxis(voxels((2, *SHAPE)), 0, place)
    directions, kinds = ["(0.5,0,0)", "(0,0.75,0)", "(0,0,3)"], ["domain"] * 3
    directions.insert(place, "none")
    kinds.insert(place, kind)
    path = write(
        tmp_path / "x.nrrd",
        stored(array),
        dimension="4",
        sizes=" ".join(map(str, array.shape)),
        space_directions=" ".join(directions),
        kinds=" ".join(kinds),
    )
    volume = load(path)
    assert_array_equal(volume.array, voxels((2, *SHAPE)))
    assert_array_equal(volume.geometry.affine, AFFINE)


def test_axes_of_length_one_are_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.nrrd",
        stored(voxels((2, *SHAPE))),
        dimension="6",
        sizes="1 2 5 4 1 3",
        space_directions="none none (0.5,0,0) (0,0.75,0) none (0,0,3)",
        kinds="RGB-color list domain domain list domain",
    )
    assert_array_equal(load(path).array, voxels((2, *SHAPE)))
    path = write(
        tmp_path / "y.nrrd",
        dimension="4",
        sizes="1 5 4 3",
        space_directions="none (0.5,0,0) (0,0.75,0) (0,0,3)",
        kinds=None,
    )
    assert_array_equal(load(path).array, voxels())


@pytest.mark.parametrize("kind", ["RGB-color", "RGBA-color", "complex", "3-vector", "covariant-vector", "3D-matrix"])
def test_what_isn_t_scalar_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(
        tmp_path / "x.nrrd",
        stored(voxels((3, *SHAPE))),
        dimension="4",
        sizes="3 5 4 3",
        space_directions="none (0.5,0,0) (0,0.75,0) (0,0,3)",
        kinds=f"{kind} domain domain domain",
    )
    code, reason = refused(path)
    assert code == "not-scalar"
    assert kind in reason


def test_what_has_no_three_axes_is_refused(tmp_path: Path) -> None:
    flat = SimpleITK.Image(5, 4, SimpleITK.sitkInt16)
    SimpleITK.WriteImage(flat, tmp_path / "x.nrrd")
    assert refused(tmp_path / "x.nrrd")[0] == "not-3d"
    assert refused(write(tmp_path / "y.nrrd", sizes="60 1 1"))[0] == "not-3d"
    lists = write(
        tmp_path / "z.nrrd",
        bytes(480),
        dimension="5",
        sizes="2 2 5 4 3",
        space_directions="none none (0.5,0,0) (0,0.75,0) (0,0,3)",
        kinds=None,
    )
    assert refused(lists)[0] == "not-3d"
    slices = write(tmp_path / "s.nrrd", space_directions="(0.5,0,0) (0,0.75,0) none")
    assert refused(slices)[0] == "not-3d"


# voxels


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize(("endian", "order"), [("little", "<"), ("BIG", ">")])
def test_both_byte_orders(tmp_path: Path, dtype: str, endian: str, order: str) -> None:
    names = {"i2": "int16", "u2": "ushort", "i4": "signed int", "u4": "uint32_t", "i8": "longlong", "f4": "float"}
    names |= {"u8": "unsigned long long int", "f8": "double"}
    path = write(tmp_path / "x.nrrd", stored(voxels(dtype=order + dtype)), type=names[dtype], endian=endian)
    array = load(path).array
    assert array.dtype.isnative
    assert_array_equal(array, voxels())


def test_the_hash_is_of_all_that_was_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nrrd")
    assert load(path).source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    detached = write(tmp_path / "y.nhdr", b"", data_file="y.raw")
    (tmp_path / "y.raw").write_bytes(stored(voxels()))
    first = load(detached).source.sha256
    write(tmp_path / "y.nhdr", b"", data_file="y.raw", comment="other bytes")
    second = load(detached).source.sha256
    (tmp_path / "y.raw").write_bytes(stored(voxels() + 1))
    assert len({first, second, load(detached).source.sha256}) == 3


def test_gzip_whole_and_in_parts(tmp_path: Path) -> None:
    content = stored(voxels())
    whole = write(tmp_path / "whole.nrrd", gzip.compress(content), encoding="GZIP")
    assert_array_equal(load(whole).array, voxels())
    parts = write(tmp_path / "parts.nrrd", gzip.compress(content[:50]) + gzip.compress(content[50:]), encoding="gz")
    assert_array_equal(load(parts).array, voxels())


@pytest.mark.parametrize(("encoding", "pack"), [("bzip2", bz2.compress), ("ascii", bytes), ("hex", bytes)])
def test_other_encodings_are_unsupported(tmp_path: Path, encoding: str, pack: Any) -> None:
    code, reason = refused(write(tmp_path / "x.nrrd", pack(stored(voxels())), encoding=encoding))
    assert code == "unsupported"
    assert encoding in reason


def test_skips(tmp_path: Path) -> None:
    junk = b"one\ntwo\nxyz"
    content = stored(voxels())
    assert_array_equal(load(write(tmp_path / "a.nrrd", junk + content, line_skip="2", byte_skip="3")).array, voxels())
    assert_array_equal(load(write(tmp_path / "b.nrrd", junk + content, byte_skip="-1")).array, voxels())
    zipped = b"one\n" + gzip.compress(b"xyz" + content)
    path = write(tmp_path / "c.nrrd", zipped, encoding="gzip", lineskip="1", byteskip="3")
    assert_array_equal(load(path).array, voxels())
    assert refused(write(tmp_path / "d.nrrd", zipped, encoding="gzip", byte_skip="-1"))[0] == "unreadable"
    assert refused(write(tmp_path / "e.nrrd", line_skip="999"))[0] == "unreadable"
    assert refused(write(tmp_path / "f.nrrd", byte_skip="99999999999999999999"))[0] == "unreadable"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_number(tmp_path: Path, bad: float) -> None:
    array = voxels(dtype=np.float32)
    array[1, 2, :2] = bad
    candidate = NRRD.describe(write(tmp_path / "x.nrrd", stored(array), type="float"))
    with pytest.raises(InputError, match=r"x\.nrrd: 2 of 60 voxels") as caught:
        NRRD.read(candidate)
    assert caught.value.code == "not-finite"


def test_blocks_are_unsupported(tmp_path: Path) -> None:
    assert refused(write(tmp_path / "x.nrrd", type="block"))[0] == "unsupported"


# another file


def test_a_file_below_the_header_s_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "vöxels.bin").write_bytes(stored(voxels()))
    path = write(tmp_path / "x.nhdr", b"", data_file="./sub/vöxels.bin")
    assert_array_equal(load(path).array, voxels())
    candidate = NRRD.describe(path)
    assert (candidate.path, candidate.files) == (path, (tmp_path / "sub" / "vöxels.bin",))
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))  # the end of the file ends such a header too
    assert_array_equal(load(path).array, voxels())


@pytest.mark.parametrize("name", ["../x.raw", "sub/../../x.raw", "{0}/x.raw", "..\\x.raw", "C:\\x.raw", "\\x.raw"])
def test_a_file_elsewhere_is_never_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "x.raw").write_bytes(stored(voxels()))
    path = write(tmp_path / "in" / "x.nhdr", b"", data_file=name.format(tmp_path))
    code, reason = refused(path)
    assert code == "unsupported"
    assert "outside" in reason


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "x%03d.raw 1 3 1", "x%d.raw 1 3 1 2"])
def test_many_files_are_unsupported(tmp_path: Path, name: str) -> None:
    code, reason = refused(write(tmp_path / "x.nhdr", b"a.raw\nb.raw\n", data_file=name))
    assert code == "unsupported"
    assert "several files" in reason


@pytest.mark.parametrize("name", ["absent.raw", "", ".", "a\0b"])
def test_a_file_that_isn_t_there(tmp_path: Path, name: str) -> None:
    assert refused(write(tmp_path / "x.nhdr", b"", data_file=name))[0] == "unreadable"


def test_bytes_behind_the_voxels_are_noted(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(stored(voxels()) + bytes(16))
    candidate = NRRD.describe(write(tmp_path / "x.nhdr", b"", data_file="x.raw"))
    assert candidate.notes == ("16 bytes follow the voxels in x.raw: check that the header tells their size and type",)


# segmentations of 3D Slicer


def test_segments_are_noted(tmp_path: Path) -> None:
    pairs = (
        "Segment0_ID:=Segment_1\nSegment0_LabelValue:=3\nSegment0_Name:=left lung\n"
        "Segment1_LabelValue:=1\nSegment1_Name:=tumour: core\nSegmentation_MasterRepresentation:=Binary labelmap\n"
    )
    volume = load(write(tmp_path / "x.seg.nrrd", lines=pairs))
    assert volume.source.name == "x.seg"
    assert volume.source.notes == ("a segmentation of 3D Slicer: 3 is left lung, 1 is tumour: core",)


# damage


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_cut_anywhere_is_unreadable(tmp_path: Path, encoding: str) -> None:
    content = stored(np.random.default_rng(1).integers(0, 999, SHAPE).astype(np.int16))
    raw = header(encoding=encoding) + (gzip.compress(content) if encoding == "gzip" else content)
    path = tmp_path / "x.nrrd"
    for length in [*range(len(header(encoding=encoding)) - 1, len(raw), 7), len(raw) - 1]:
        path.write_bytes(raw[:length])
        assert refused(path)[0] == "unreadable", length
    for length in range(0, len(header()) - 1, 5):
        path.write_bytes(raw[:length])
        refused(path)


def test_a_damaged_gzip(tmp_path: Path) -> None:
    zipped = bytearray(gzip.compress(stored(voxels()), 0))
    zipped[-20] ^= 0xFF
    candidate = NRRD.describe(write(tmp_path / "x.nrrd", bytes(zipped), encoding="gzip"))
    with pytest.raises(InputError, match="compressed data are damaged") as caught:
        NRRD.read(candidate)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_promise_that_no_file_keeps(tmp_path: Path, encoding: str) -> None:
    zipped = bytearray(gzip.compress(bytes(1000)))
    zipped[-4:] = (65535**3 * 8 % 2**32).to_bytes(4, "little")  # the gzip promises it too
    path = write(tmp_path / "x.nrrd", bytes(zipped), sizes="65535 65535 65535", type="double", encoding=encoding)
    code, reason = refused(path)
    assert code == "unreadable"
    assert str(65535**3 * 8) in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": "5 4"},
        {"sizes": "5 4 x"},
        {"sizes": "5 4 0"},
        {"sizes": "5 4 -3"},
        {"sizes": "5 4 " + "9" * 5000},
        {"sizes": None},
        {"dimension": None},
        {"dimension": "3 3"},
        {"type": None},
        {"endian": None},
        {"endian": "middle"},
        {"encoding": None},
        {"lines": "sizes: 5 4 3\n"},
        {"lines": "no colon\n"},
        {"byte_skip": "1 2"},
        {"byte_skip": "-2"},
    ],
)
def test_a_damaged_header(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert refused(write(tmp_path / "x.nrrd", **changes))[0] == "unreadable"


def test_no_header_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.nrrd"
    for content in (b"", b"NRRD", b"PNG", b"\n", bytes(500), b"\xff" * 500):
        path.write_bytes(content)
        assert "no NRRD header" in refused(path)[1]
    path.write_bytes(b"NRRD0004\n" + b"# comment\n" * 200_000)
    assert "no end within" in refused(path)[1]
    path.unlink()
    assert refused(path)[0] == "unreadable"


def test_names() -> None:
    assert NRRD.claims(Path("a/X.NRRD"))
    assert NRRD.claims(Path("x.nhdr"))
    assert not NRRD.claims(Path("x.nrrd.gz"))
    assert NRRD.stem(Path("a/x.seg.nrrd")) == "x.seg"


WORDS = [
    "none",
    "(1,0,0)",
    "nan",
    "-1",
    "0",
    "1e999",
    "99999999999999999999",
    "::",
    ":=",
    "\0",
    "²",
    "\xff",
    "list",
    "LIST",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_a_mutated_header_is_never_a_crash(tmp_path: Path, data: Any) -> None:
    encoding = data.draw(st.sampled_from(["raw", "gzip"]))
    raw = bytearray(header(encoding=encoding, space_units='"mm" "mm" "mm"', byte_skip="0", line_skip="0"))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        stop = start + data.draw(st.integers(0, 6))
        raw[start:stop] = data.draw(st.binary(max_size=6) | st.sampled_from([word.encode() for word in WORDS]))
    content = stored(voxels())
    path = tmp_path / "x.nrrd"
    path.write_bytes(bytes(raw) + (gzip.compress(content) if encoding == "gzip" else content))
    candidate = NRRD.describe(path)
    assert candidate.usable == (candidate.code is None)
    if candidate.usable:
        with suppress(RefusalError):
            assert NRRD.read(candidate).array.nbytes <= 1032 * path.stat().st_size
