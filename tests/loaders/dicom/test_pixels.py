"""From the files of a series to voxels: bits, byte orders, fragments, frames, rescaling; worked out by hand."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.helpers.dicom_files import Array, Edit, lps_affine, put, put_at, voxels, write_series
from tests.helpers.dicom_objects import enhanced_mr, save
from volseg.errors import InputError
from volseg.loaders import find
from volseg.volume import Volume


def load(path: Path) -> Volume:
    (candidate,) = find(path).candidates
    return candidate.load()


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load(path)
    return caught.value


def cells(of: Callable[[int], Array], **values: Any) -> Edit:
    """Edit that replaces the pixel data of slice k by the bytes of ``of(k)`` [row, column]."""

    def edit(dataset: Dataset, index: int) -> None:
        put(**values)(dataset, index)
        dataset.PixelData = of(index).tobytes()

    return edit


def rle(array: Array) -> bytes:
    """One frame, in literal runs of one byte."""
    planes = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).view(np.uint8).reshape(-1, array.itemsize).T
    segments = [b"".join(b"\0" + bytes([value]) for value in plane) for plane in planes]
    starts = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return struct.pack("<16L", len(planes), *starts, *[0] * (15 - len(planes))) + b"".join(segments)


# Bits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 5, 8, 11, 12, 15])
def test_bits_above_those_that_count_are_nothing(tmp_path: Path, bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    array = (low + np.arange(60).reshape(5, 4, 3) * 7919 % 2**bits).astype(np.int32)
    overlay = 2**bits * (np.arange(60).reshape(5, 4, 3) % 2 ** (16 - bits))
    stored = (array % 2**bits + overlay).astype(np.uint16)
    edit = cells(
        lambda k: stored[:, :, k].T,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        RescaleIntercept=-3,
    )
    write_series(tmp_path, stored, edit=edit)
    volume = load(tmp_path)
    assert_array_equal(volume.array, array - 3)
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize(("dtype", "wide"), [(np.uint8, np.int16), (np.int16, np.int16), (np.uint16, np.int32)])
def test_every_bit_may_count(tmp_path: Path, dtype: Any, wide: Any) -> None:
    info = np.iinfo(dtype)
    array = np.linspace(info.min, info.max, 60).astype(dtype).reshape(5, 4, 3)
    write_series(tmp_path, array)
    volume = load(tmp_path)
    assert volume.array.dtype == wide
    assert_array_equal(volume.array, array)


def test_32_bits(tmp_path: Path) -> None:
    array = np.linspace(-(2**31), 2**31 - 1, 60).astype(np.int32).reshape(5, 4, 3)
    write_series(tmp_path / "signed", array)
    assert_array_equal(load(tmp_path / "signed").array, array)
    assert load(tmp_path / "signed").array.dtype == np.int32
    # Without a sign they fit into no integer that is used, and are rounded as floating-point numbers are.
    unsigned = array.view(np.uint32)
    write_series(tmp_path / "unsigned", unsigned, edit=put(RescaleSlope=1))
    assert_array_equal(load(tmp_path / "unsigned").array, unsigned.astype(np.float32))


def test_values_that_lie_high(tmp_path: Path) -> None:
    array = voxels((5, 4, 3), np.uint16)
    high = put(BitsStored=12, HighBit=15)
    write_series(tmp_path / "zeros", array * 16, edit=high)
    assert_array_equal(load(tmp_path / "zeros").array, array)
    write_series(tmp_path / "other", array * 16 + 3, edit=high)
    error = refused(tmp_path / "other")
    assert error.code == "unsupported"
    assert "HighBit 15 with BitsStored 12" in error.reason


def test_bits_that_contradict_each_other(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put_at(1, BitsStored=17))
    (candidate,) = find(tmp_path).candidates
    assert candidate.code == "unreadable"
    assert "IM001.dcm: BitsAllocated 16, BitsStored 17 and HighBit 15" in (candidate.reason or "")


# Byte orders and encodings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_little_endian(tmp_path: Path, syntax: UID, dtype: Any) -> None:
    # 35 bytes a slice where they are 8 bits: padded to even length.
    array = voxels((7, 5, 3), dtype)
    write_series(tmp_path, array, syntax=syntax)
    assert_array_equal(load(tmp_path).array, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("representation", ["OB", "OW"])
def test_big_endian(tmp_path: Path, dtype: Any, representation: str) -> None:
    array = voxels((7, 5, 3), dtype)

    def edit(dataset: Dataset, index: int) -> None:
        content = array[:, :, index].T.astype(np.dtype(dtype).newbyteorder(">")).tobytes()
        content += b"\0" * (len(content) % 2)
        if dtype is np.uint8 and representation == "OW":
            content = b"".join(content[at : at + 2][::-1] for at in range(0, len(content), 2))
        dataset.PixelData = content
        dataset["PixelData"].VR = representation
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

    write_series(tmp_path, array, edit=edit)
    assert_array_equal(load(tmp_path).array, array)


def test_big_endian_with_bits_above(tmp_path: Path) -> None:
    array = voxels()

    def edit(dataset: Dataset, index: int) -> None:
        dataset.PixelData = (array[:, :, index].T & 0xFFF | 0x3000).astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.BitsStored, dataset.HighBit = 12, 11

    write_series(tmp_path, array, edit=edit)
    assert_array_equal(load(tmp_path).array, array)


def test_uncompressed_pixels_under_the_name_of_a_compressed_syntax(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    for path in paths:
        # The name alone, of the same length but for padding; pydicom doesn't write such a file.
        content = path.read_bytes()
        new = JPEGLossless.encode().ljust(len(ExplicitVRLittleEndian) + 1, b"\0")
        start = content.index(ExplicitVRLittleEndian.encode())
        length = start - 2
        grown = len(new) - struct.unpack_from("<H", content, length)[0]
        group = 128 + 4 + 8
        meta = struct.unpack_from("<L", content, group)[0] + grown
        path.write_bytes(
            content[:group]
            + struct.pack("<L", meta)
            + content[group + 4 : length]
            + struct.pack("<H", len(new))
            + new
            + content[start + len(new) - grown :]
        )
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == JPEGLossless
    assert_array_equal(load(tmp_path).array, voxels())


def test_floating_point_pixels_are_refused_by_name(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        del dataset.PixelData
        dataset.FloatPixelData = np.zeros(20, np.float32).tobytes()
        dataset.BitsAllocated = 32

    write_series(tmp_path, edit=edit)
    error = refused(tmp_path)
    assert error.code == "unsupported"
    assert "FloatPixelData" in error.reason


# Fragments and frames ------------------------------------------------------------------------------------------------


def encapsulated(frames: Sequence[bytes], *, pieces: int = 1, offsets: bool = False) -> Edit:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.PixelData = encapsulate([frames[index]], fragments_per_frame=pieces, has_bot=offsets)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless

    return edit


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_frame_in_several_fragments(tmp_path: Path, pieces: int, offsets: bool) -> None:
    array = voxels()
    frames = [rle(array[:, :, k].T) for k in range(3)]
    write_series(tmp_path, array, edit=encapsulated(frames, pieces=pieces, offsets=offsets))
    assert_array_equal(load(tmp_path).array, array)


def multiframe(path: Path, order: Sequence[int], pixel_data: bytes | None, array: Array, **values: Any) -> Path:
    dataset = enhanced_mr(array, lps_affine(), frames=order)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    if pixel_data is None:
        return save(dataset, path)
    dataset.PixelData = pixel_data
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return save(dataset, path, RLELossless)


ORDER = (2, 0, 3, 1)


def test_frames_of_one_file_in_any_order(tmp_path: Path) -> None:
    array = voxels((5, 4, 4))
    path = multiframe(tmp_path / "mr", ORDER, None, array)
    volume = load(path)
    assert_array_equal(volume.array, array)
    assert volume.source.dicom is not None
    # Slice k is the frame that says so.
    assert [instance.frame for instance in volume.source.dicom.instances] == [1, 3, 0, 2]
    assert volume.source.sha256 == hashlib.sha256(hashlib.sha256(path.read_bytes()).hexdigest().encode()).hexdigest()


@pytest.mark.parametrize(("pieces", "offsets"), [(1, False), (1, True), (3, True)])
def test_compressed_frames_of_one_file(tmp_path: Path, pieces: int, offsets: bool) -> None:
    array = voxels((5, 4, 4))
    frames = [rle(array[:, :, k].T) for k in ORDER]
    data = encapsulate(frames, fragments_per_frame=pieces, has_bot=offsets)
    assert_array_equal(load(multiframe(tmp_path / "mr", ORDER, data, array)).array, array)


def test_compressed_frames_with_an_extended_table_of_offsets(tmp_path: Path) -> None:
    array = voxels((5, 4, 4))
    data, table, lengths = encapsulate_extended([rle(array[:, :, k].T) for k in ORDER])
    values = {"ExtendedOffsetTable": table, "ExtendedOffsetTableLengths": lengths}
    assert_array_equal(load(multiframe(tmp_path / "mr", ORDER, data, array, **values)).array, array)


def test_absent_frames(tmp_path: Path) -> None:
    array = voxels((5, 4, 4))
    data = encapsulate([rle(array[:, :, k].T) for k in ORDER[:3]], has_bot=True)
    error = refused(multiframe(tmp_path / "mr", ORDER, data, array))
    assert error.code == "unreadable"
    assert "3 of 4 frames are there" in error.reason


def test_frames_of_odd_length(tmp_path: Path) -> None:
    # 35 bytes each, without padding between them.
    array = voxels((7, 5, 4), np.uint8)
    assert_array_equal(load(multiframe(tmp_path / "mr", ORDER, None, array)).array, array)


def test_a_frame_has_its_own_rescaling(tmp_path: Path) -> None:
    array = voxels((5, 4, 2))
    dataset = enhanced_mr(array, lps_affine())
    shared = dataset.SharedFunctionalGroupsSequence[0]
    del shared.PixelValueTransformationSequence
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        own = Dataset()
        own.RescaleSlope, own.RescaleIntercept, own.RescaleType = index + 1.5, index, "US"
        item.PixelValueTransformationSequence = [own]
    volume = load(save(dataset, tmp_path / "mr"))
    assert_array_equal(volume.array, (array * np.array([1.5, 2.5]) + np.array([0, 1])).astype(np.float32))


# Values --------------------------------------------------------------------------------------------------------------


def test_rescaled_values_are_rounded_once(tmp_path: Path) -> None:
    array = np.linspace(-32768, 32767, 150 * 70 * 2).astype(np.int16).reshape(150, 70, 2)
    write_series(tmp_path, array, edit=put(RescaleSlope="0.1234567891", RescaleIntercept="-1000.0003"))
    expected = (array * 0.1234567891 - 1000.0003).astype(np.float32)
    assert_array_equal(load(tmp_path).array, expected)


@pytest.mark.parametrize(("slope", "intercept"), [(1e300, 0), (1, -1e300), (1e30, 0)])
def test_numbers_too_large_for_any_scan(tmp_path: Path, slope: float, intercept: float) -> None:
    write_series(tmp_path, edit=put_at(2, RescaleSlope=slope, RescaleIntercept=intercept))
    error = refused(tmp_path)
    assert error.code == "unreadable"
    assert "too large" in error.reason


def test_padding_and_monochrome1_stay_as_stored(tmp_path: Path) -> None:
    array = voxels()
    array[0] = -2000
    values = put(PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1", RescaleSlope=1, RescaleIntercept=-10)
    write_series(tmp_path, array, edit=values)
    assert_array_equal(load(tmp_path).array, array - 10)


# Files ---------------------------------------------------------------------------------------------------------------


def test_hash_is_of_the_files_in_the_order_of_the_slices(tmp_path: Path) -> None:
    paths = write_series(tmp_path, name=lambda index: f"{9 - index}.dcm")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert load(tmp_path).source.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_inside_an_archive(tmp_path: Path, syntax: UID) -> None:
    paths = write_series(tmp_path / "series", syntax=syntax)
    (tmp_path / "study").mkdir()
    with zipfile.ZipFile(tmp_path / "study" / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"inside/{path.name}")
    one, other = load(tmp_path / "series"), load(tmp_path / "study")
    assert_array_equal(other.array, voxels())
    assert other.source.sha256 == one.source.sha256


def test_files_that_changed_since_they_were_found(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    (candidate,) = find(tmp_path).candidates
    other = write_series(tmp_path / "other", voxels((5, 6, 3)))
    paths[1].write_bytes(other[1].read_bytes())
    with pytest.raises(InputError, match=r"IM001\.dcm: changed since it was found") as caught:
        candidate.load()
    assert caught.value.code == "unreadable"
    paths[1].unlink()
    with pytest.raises(InputError, match=r"IM001\.dcm: can't be read: No such file"):
        candidate.load()


@pytest.mark.parametrize("many", [False, True], ids=["a file a slice", "one file"])
def test_memory_is_the_array_and_a_few_slices(tmp_path: Path, many: bool) -> None:
    array = np.arange(256 * 256 * 24, dtype=np.int32).astype(np.int16).reshape(256, 256, 24)
    if many:
        multiframe(tmp_path / "mr", range(24), None, array)
    else:
        write_series(tmp_path, array)
    (candidate,) = find(tmp_path).candidates
    candidate.load()  # what is imported isn't counted
    tracemalloc.start()
    try:
        volume = candidate.load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_array_equal(volume.array, array)
    # In each of four threads a slice, and the file that it comes from as long as it is looked for there; two to spare.
    assert peak < array.nbytes + 10 * array.nbytes / 24


@pytest.mark.parametrize(("more", "read"), [(472, True), (4094, True), (4096, False)])
def test_zeros_behind_the_pixels_fill_up_a_block(tmp_path: Path, more: int, read: bool) -> None:
    """PS3.5 8.1.1 lets pixel data be padded; 5 x 4 pixels of 2 bytes are 40."""

    def filled(dataset: Dataset, _: int) -> None:
        dataset.PixelData += b"\0" * more

    write_series(tmp_path, edit=filled)
    if read:
        assert_array_equal(load(tmp_path).array, voxels())
    else:
        assert "the image has another size" in refused(tmp_path).reason


@pytest.mark.parametrize("place", [40, 300, 511])
def test_anything_else_behind_the_pixels_is_another_size(tmp_path: Path, place: int) -> None:
    def filled(dataset: Dataset, _: int) -> None:
        data = bytearray(dataset.PixelData + b"\0" * 472)
        data[place] = 1
        dataset.PixelData = bytes(data)

    write_series(tmp_path, edit=filled)
    assert "the image has another size" in refused(tmp_path).reason
