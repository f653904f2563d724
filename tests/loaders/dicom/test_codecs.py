"""Compressed frames to stored values: held against other encoders and decoders than those that volseg uses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from tests.helpers.dicom_files import put, write_series
from volseg.errors import InputError
from volseg.loaders.dicom import codec_process
from volseg.loaders.dicom.codec_process import CodecError, Codecs
from volseg.loaders.dicom.codecs import CODECS, Layout, decode, refused_syntax, wrapped
from volseg.loaders.dicom.header import Header

Array = npt.NDArray[Any]
JPEG = "1.2.840.10008.1.2.4."
# Not smaller: OpenJPEG's encoder halves an image five times.
ROWS, COLUMNS = 40, 37
PATH = Path("slice.dcm")


def layout(stored: int = 12, *, allocated: int = 16, signed: bool = False, high: int | None = None) -> Layout:
    return Layout(
        rows=ROWS,
        columns=COLUMNS,
        allocated=allocated,
        stored=stored,
        high=stored - 1 if high is None else high,
        signed=signed,
    )


def smooth(bits: int = 12, dtype: Any = np.uint16) -> Array:
    """An image over the whole range of `bits`, without edges for a lossy codec to blur."""
    i, j = np.mgrid[:ROWS, :COLUMNS]
    wave = np.sin(i / 3) * np.cos(j / 4)
    return np.asarray(np.rint((wave - wave.min()) / np.ptp(wave) * (2**bits - 1)), dtype)


@pytest.fixture(scope="module")
def codecs() -> Iterator[Codecs]:
    with Codecs(1) as started:
        yield started


def by_another(uid: str, frame: bytes, how: Layout, plugin: str) -> Array:
    """What pydicom gives with one of its plugins."""
    options: Any = {
        "rows": how.rows,
        "columns": how.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": how.allocated,
        "bits_stored": how.stored,
        "pixel_representation": int(how.signed),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    decoded = get_decoder(UID(uid)).as_array(encapsulate([frame]), decoding_plugin=plugin, **options)
    return np.asarray(decoded[0])


def by_simpleitk(uid: str, frame: bytes, how: Layout, folder: Path) -> Array:
    """What SimpleITK's own GDCM gives."""
    import SimpleITK

    def edit(dataset: pydicom.Dataset, index: int) -> None:
        dataset.file_meta.TransferSyntaxUID = UID(uid)
        dataset.BitsStored, dataset.HighBit = how.stored, how.high
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    (path,) = write_series(folder, np.zeros((how.columns, how.rows, 1), np.uint16), edit=edit)
    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0])


# Encoders ------------------------------------------------------------------------------------------------------------


def rle(array: Array) -> bytes:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *array.shape, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", int(array.dtype.kind == "i")
    dataset.BitsAllocated = dataset.BitsStored = array.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.SOPInstanceUID = "1.2.3"
    dataset.compress(UID("1.2.840.10008.1.2.5"), array, encoding_plugin="pydicom", generate_instance_uid=False)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def jpegls(array: Array, near: int = 0) -> bytes:
    import jpeg_ls  # type: ignore[import-untyped]

    return bytes(jpeg_ls.encode_array(array, lossy_error=near))


def jpeg2000(array: Array) -> bytes:
    from openjpeg.utils import encode_array

    return bytes(encode_array(array, bits_stored=12, photometric_interpretation=2))


def jpeg2000_lossy(array: Array) -> bytes:
    from openjpeg.utils import encode_array

    return bytes(encode_array(array, bits_stored=12, photometric_interpretation=2, compression_ratios=[3]))


def lossless(array: Array, predictor: int = 1, bits: int = 12) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(array, lossless=True, predictor=predictor, bitspersample=bits))


def high_throughput(array: Array) -> bytes:
    return bytes(imagecodecs.htj2k_encode(array))


def jpegxl(array: Array) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(array, lossless=True, bitspersample=12))


def deflated(array: Array) -> bytes:
    import zlib

    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(array.tobytes()) + compressor.flush()


EXACT: list[tuple[str, Callable[[Array], bytes], str | None]] = [
    ("1.2.840.10008.1.2.5", rle, None),
    ("1.2.840.10008.1.2.8.1", deflated, None),
    *((f"{JPEG}57", lambda array, n=predictor: lossless(array, n), "gdcm") for predictor in range(1, 8)),
    (f"{JPEG}70", lossless, "gdcm"),
    (f"{JPEG}80", jpegls, None),
    (f"{JPEG}81", jpegls, None),
    (f"{JPEG}90", jpeg2000, None),
    (f"{JPEG}91", jpeg2000, None),
    *((f"{JPEG}20{number}", high_throughput, "pylibjpeg") for number in (1, 2, 3)),
    (f"{JPEG}110", jpegxl, None),
]


@pytest.mark.parametrize(("uid", "encode", "other"), EXACT, ids=lambda value: getattr(value, "__name__", value))
def test_lossless_frames_come_back_as_they_were(
    uid: str, encode: Callable[[Array], bytes], other: str | None, codecs: Codecs
) -> None:
    array = smooth()
    frame = encode(array)
    if other is not None:
        # The encoder is of the decoder's own library: another decoder must understand it as well.
        np.testing.assert_array_equal(by_another(uid, frame, layout(), other), array)
    np.testing.assert_array_equal(decode(frame, UID(uid), layout(), codecs, PATH), array)


LOSSY: list[tuple[str, Callable[[Array], bytes], str, int, int]] = [
    (f"{JPEG}50", lambda array: bytes(imagecodecs.jpeg8_encode(array, 95)), "pillow", 8, 4),
    (f"{JPEG}51", lambda array: bytes(imagecodecs.jpeg8_encode(array, 95, bitspersample=12)), "SimpleITK", 12, 20),
    (f"{JPEG}81", lambda array: jpegls(array, 3), "gdcm", 12, 3),
    (f"{JPEG}91", jpeg2000_lossy, "pylibjpeg", 12, 200),
]


@pytest.mark.parametrize(("uid", "encode", "other", "bits", "error"), LOSSY, ids=[uid for uid, *_ in LOSSY])
def test_lossy_frames_are_as_another_decoder_has_them(
    uid: str, encode: Callable[[Array], bytes], other: str, bits: int, error: int, codecs: Codecs, tmp_path: Path
) -> None:
    how = layout(bits, allocated=8 if bits == 8 else 16)
    array = smooth(bits, np.uint8 if bits == 8 else np.uint16)
    frame = encode(array)
    ours = decode(frame, UID(uid), how, codecs, PATH).astype(int)
    simple = other == "SimpleITK"
    theirs = by_simpleitk(uid, frame, how, tmp_path) if simple else by_another(uid, frame, how, other)
    # Inverse transforms round differently.
    assert np.abs(ours - theirs).max() <= 1
    assert 0 < np.abs(ours - array).max() <= error


def test_every_syntax_is_tested() -> None:
    assert {uid for uid, *_ in [*EXACT, *LOSSY]} >= set(CODECS) - {f"{JPEG}111", f"{JPEG}112"}


@pytest.mark.parametrize("number", [111, 112])
def test_lossy_jpeg_xl(number: int, codecs: Codecs) -> None:
    # No other decoder is at hand: held against what was encoded.
    array = smooth(8, np.uint8)
    frame = bytes(imagecodecs.jpegxl_encode(array, level=95))
    ours = decode(frame, UID(f"{JPEG}{number}"), layout(8, allocated=8), codecs, PATH)
    assert 0 < np.abs(ours.astype(int) - array).max() <= 8


GDCM = """
import gdcm, sys
source, folder, *names = sys.argv[1:]
for name in names:
    reader = gdcm.ImageReader(); reader.SetFileName(source); assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax(); change.SetInput(reader.GetImage())
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name))); assert change.Change()
    writer = gdcm.ImageWriter(); writer.SetFile(reader.GetFile()); writer.SetImage(change.GetOutput())
    writer.SetFileName(f"{folder}/{name}.dcm"); assert writer.Write()
"""


def test_signed_values_that_gdcm_encoded(tmp_path: Path, codecs: Codecs) -> None:
    names = ("JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless")
    array = (smooth().astype(np.int16) - 2048).T[:, :, None]
    (path,) = write_series(tmp_path, array, edit=put(BitsStored=12, HighBit=11))
    # In a process of its own: gdcm may end it.
    subprocess.run([sys.executable, "-c", GDCM, str(path), str(tmp_path), *names], check=True)
    for name in names:
        dataset = pydicom.dcmread(tmp_path / f"{name}.dcm")
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        ours = decode(frame, dataset.file_meta.TransferSyntaxUID, layout(signed=True), codecs, PATH)
        np.testing.assert_array_equal(ours, array[:, :, 0].T, err_msg=name)
        assert ours.dtype == np.int16


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_run_lengths_of_every_size(dtype: Any, codecs: Codecs) -> None:
    array = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * 517 % 3).astype(dtype) - np.array(1).astype(dtype)
    how = layout(array.itemsize * 8, allocated=array.itemsize * 8, signed=array.dtype.kind == "i")
    np.testing.assert_array_equal(decode(rle(array), UID("1.2.840.10008.1.2.5"), how, codecs, PATH), array)


def test_run_lengths_of_32_bits(codecs: Codecs) -> None:
    # pydicom doesn't write them: four segments by hand, literal runs of one, the most significant byte first.
    array = np.arange(ROWS * COLUMNS, dtype=np.uint32).reshape(ROWS, COLUMNS) * 2_900_003
    planes = [array.astype(">u4").view(np.uint8).reshape(-1, 4)[:, byte] for byte in range(4)]
    segments = [b"".join(b"\0" + bytes([value]) for value in plane) for plane in planes]
    header = np.zeros(16, "<u4")
    header[0], header[1:5] = 4, 64 + np.cumsum([0, *map(len, segments[:3])])
    frame = header.tobytes() + b"".join(segments)
    how = layout(32, allocated=32)
    np.testing.assert_array_equal(decode(frame, UID("1.2.840.10008.1.2.5"), how, codecs, PATH), array)


# Precision and sign that the image and the header say differently ----------------------------------------------------


def test_unsigned_image_of_signed_values_is_a_twos_complement(codecs: Codecs) -> None:
    values = np.full((ROWS, COLUMNS), 5, np.int16)
    values[0, :4] = -2000, -1, 0, 2047
    for uid, encode in ((f"{JPEG}70", lossless), (f"{JPEG}80", jpegls), (f"{JPEG}90", jpeg2000)):
        frame = encode(values.view(np.uint16) & 0xFFF)
        # 16 bits that the header says are as right: the sign is where the image's bits end.
        for how in (layout(12, signed=True), layout(16, signed=True)):
            if encode is jpegls and how.stored == 16:
                continue
            np.testing.assert_array_equal(decode(frame, UID(uid), how, codecs, PATH), values, err_msg=uid)


def test_signed_jpeg2000(codecs: Codecs) -> None:
    values = smooth().astype(np.int16) - 2048
    frame = bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True))
    np.testing.assert_array_equal(decode(frame, UID(f"{JPEG}90"), layout(16, signed=True), codecs, PATH), values)
    with pytest.raises(InputError, match="signed values where the header says unsigned") as caught:
        decode(frame, UID(f"{JPEG}90"), layout(16), codecs, PATH)
    assert caught.value.code == "unsupported"
    # Without a negative value there is one meaning.
    frame = bytes(imagecodecs.jpeg2k_encode(values + 2048, codecformat="j2k", reversible=True))
    np.testing.assert_array_equal(decode(frame, UID(f"{JPEG}90"), layout(16), codecs, PATH), values + 2048)


def test_lossy_image_of_signed_values_is_refused_where_they_are_negative(codecs: Codecs) -> None:
    array = smooth()
    frame = bytes(imagecodecs.jpeg8_encode(array, 95, bitspersample=12))
    with pytest.raises(InputError, match="export the series uncompressed") as caught:
        decode(frame, UID(f"{JPEG}51"), layout(12, signed=True), codecs, PATH)
    assert caught.value.code == "unsupported"
    frame = bytes(imagecodecs.jpeg8_encode(array // 2, 95, bitspersample=12))
    ours = decode(frame, UID(f"{JPEG}51"), layout(12, signed=True), codecs, PATH)
    assert np.abs(ours - (array // 2).astype(int)).max() <= 20


def test_bits_above_those_that_count_are_dropped(codecs: Codecs) -> None:
    array = smooth()
    rubbish = array | 0x7000
    for uid, encode in (("1.2.840.10008.1.2.5", rle), (f"{JPEG}80", jpegls)):
        np.testing.assert_array_equal(decode(encode(rubbish), UID(uid), layout(), codecs, PATH), array)
    frame = lossless(rubbish, bits=16)
    np.testing.assert_array_equal(decode(frame, UID(f"{JPEG}70"), layout(), codecs, PATH), array)


def test_error_of_a_lossy_codec_does_not_wrap(codecs: Codecs) -> None:
    # Sixteen bits in the image, twelve in the header, and values at the upper end of the twelve.
    array = np.full((ROWS, COLUMNS), 4095, np.uint16)
    array[::2, ::3] = 4090
    ours = decode(jpegls(array | 0, near=4), UID(f"{JPEG}81"), layout(), codecs, PATH)
    assert ours.min() >= 4086
    assert ours.max() <= 4095


def test_high_bit_in_compressed_pixels(codecs: Codecs) -> None:
    with pytest.raises(InputError, match="HighBit 15 with BitsStored 12") as caught:
        decode(lossless(smooth()), UID(f"{JPEG}70"), layout(high=15), codecs, PATH)
    assert caught.value.code == "unsupported"


@given(st.sampled_from([np.uint8, np.uint16, np.uint32]), st.data(), st.booleans(), st.sampled_from(["=", ">", "<"]))
def test_wrapped_is_arithmetic_modulo_a_power_of_two(dtype: Any, data: st.DataObject, signed: bool, order: str) -> None:
    size = np.dtype(dtype).itemsize * 8
    bits = data.draw(st.integers(1, size))
    numbers = data.draw(st.lists(st.integers(0, 2**size - 1), min_size=1, max_size=6))
    expected = [number % 2**bits for number in numbers]
    if signed:
        expected = [number - 2**bits if number >= 2 ** (bits - 1) else number for number in expected]
    cells = np.array(numbers, np.dtype(dtype).newbyteorder(order))
    assert wrapped(cells, bits, signed=signed).tolist() == expected
    assert cells.tolist() == numbers


# What is refused -----------------------------------------------------------------------------------------------------

COMPRESSED = [(uid, encode) for uid, encode, _ in EXACT if uid not in (f"{JPEG}81", f"{JPEG}91")]


@pytest.mark.parametrize(("uid", "encode"), COMPRESSED, ids=lambda value: getattr(value, "__name__", value))
def test_a_frame_that_is_cut_short(uid: str, encode: Callable[[Array], bytes], codecs: Codecs) -> None:
    frame = encode(smooth())
    for length in (0, 1, 3, 70, len(frame) // 2, len(frame) - 8):
        with pytest.raises(InputError) as caught:
            decode(frame[:length], UID(uid), layout(), codecs, PATH)
        assert caught.value.code == "unreadable"
        assert str(caught.value).startswith("slice.dcm: pixels can't be decoded (")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("uid", "encode"), COMPRESSED, ids=lambda value: getattr(value, "__name__", value))
def test_a_frame_of_another_size(uid: str, encode: Callable[[Array], bytes], codecs: Codecs) -> None:
    for shape in ((ROWS + 1, COLUMNS), (ROWS, COLUMNS + 1), (COLUMNS, ROWS), (65535, 65535)):
        if uid in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1") and shape == (COLUMNS, ROWS):
            continue  # nothing in them says which is which
        with pytest.raises(InputError) as caught:
            decode(encode(smooth()), UID(uid), replace(layout(), rows=shape[0], columns=shape[1]), codecs, PATH)
        assert caught.value.code == "unreadable"


def test_colour_behind_a_header_that_denies_it(codecs: Codecs) -> None:
    frame = bytes(imagecodecs.jpeg8_encode(np.zeros((ROWS, COLUMNS, 3), np.uint8), 95))
    with pytest.raises(InputError, match="3 components"):
        decode(frame, UID(f"{JPEG}50"), layout(8, allocated=8), codecs, PATH)


def test_junk_in_every_syntax(codecs: Codecs) -> None:
    for uid in CODECS:
        for frame in (
            b"",
            b"\xff\xd8\xff\xd9",
            bytes(range(256)) + b"\xff\xd9",
            b"\xff\x4f\xff\x51\0" + b"\xff\xd9" * 30,
        ):
            with pytest.raises(InputError) as caught:
                decode(frame, UID(uid), layout(), codecs, PATH)
            assert caught.value.code == "unreadable"


CORRUPT = """
import numpy as np, sys
from pathlib import Path
from pydicom.uid import UID
from volseg.errors import InputError
from volseg.loaders.dicom.codec_process import Codecs
from volseg.loaders.dicom.codecs import Layout, decode
frame = Path(sys.argv[1]).read_bytes()
how = Layout(rows=40, columns=37, allocated=16, stored=12, high=11, signed=False)
random = np.random.default_rng(7)
refused = 0
with Codecs(1) as codecs:
    for _ in range(200):
        damaged = bytearray(frame)
        for position in random.integers(0, len(frame), random.integers(1, 9)):
            damaged[position] = random.integers(0, 256)
        try:
            assert decode(bytes(damaged), UID(sys.argv[2]), how, codecs, Path("x")).shape == (40, 37)
        except InputError as error:
            assert error.code in ("unreadable", "unsupported")
            refused += 1
print(refused)
"""


@pytest.mark.parametrize(("uid", "encode"), [(f"{JPEG}70", lossless), (f"{JPEG}90", jpeg2000)])
def test_damaged_frames_end_no_process(uid: str, encode: Callable[[Array], bytes], tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(encode(smooth()))
    done = subprocess.run(
        [sys.executable, "-c", CORRUPT, str(tmp_path / "frame"), uid], capture_output=True, text=True, check=True
    )
    assert 20 < int(done.stdout) <= 200


def test_a_codec_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    array = smooth(16)
    frame = jpegls(array)
    with Codecs(1) as codecs:
        np.testing.assert_array_equal(codecs.decode("jpegls", frame, array.shape, array.dtype), array)
        monkeypatch.setattr(codec_process, "SECONDS", 1.0)
        # CharLS waits for ever for the rest of this one. `decode` refuses it before: its end is absent.
        with pytest.raises(CodecError, match="crashed, or took longer than 1 s"):
            codecs.decode("jpegls", frame[:-13], array.shape, array.dtype)
        monkeypatch.undo()
        np.testing.assert_array_equal(codecs.decode("jpegls", frame, array.shape, array.dtype), array)


def test_a_codec_that_crashes_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    array = smooth()
    with Codecs(1) as codecs:
        for _ in range(2):
            np.testing.assert_array_equal(codecs.decode("rle", rle(array), array.shape, array.dtype), array)
            process = codecs._idle.get()
            assert process is not None
            process.kill()
            process.wait()
            codecs._idle.put(process)
            with pytest.raises(CodecError, match="crashed"):
                codecs.decode("rle", rle(array), array.shape, array.dtype)


def test_processes_end_with_the_block() -> None:
    array = smooth()
    with Codecs(2) as codecs:
        codecs.decode("rle", rle(array), array.shape, array.dtype)
        process = codecs._idle.get()
        codecs._idle.put(process)
    assert process is not None
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("uid", "said"),
    [
        (f"{JPEG}102", "MPEG-4 AVC/H.264 High Profile / Level 4.1: a film"),
        (f"{JPEG}102.1", "a film"),
        (f"{JPEG}94", "JPIP Referenced: the pixels aren't in the files"),
        (f"{JPEG}92", "no codec for JPEG 2000 Part 2"),
        ("1.2.3.4", "no codec for 1.2.3.4; export the series uncompressed, or decompress it"),
        ("", "no codec for an unnamed transfer syntax"),
    ],
)
def test_syntaxes_without_a_codec(uid: str, said: str) -> None:
    assert said in (refused_syntax(uid) or "")


def test_syntaxes_with_a_codec() -> None:
    assert [refused_syntax(uid) for uid in (*CODECS, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")] == [None] * 18


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"BitsAllocated": "12"}, "unsupported"),
        ({"BitsAllocated": "1", "BitsStored": "1"}, "unsupported"),
        ({}, "unsupported"),
        ({"BitsAllocated": "16", "BitsStored": "17"}, "unreadable"),
        ({"BitsAllocated": "16", "BitsStored": "12", "HighBit": "16"}, "unreadable"),
        ({"BitsAllocated": "16", "BitsStored": "12", "HighBit": "7"}, "unreadable"),
        ({"BitsAllocated": "16", "BitsStored": "-3"}, "unreadable"),
    ],
)
def test_numbers_of_bits_that_cannot_be(values: dict[str, str], code: str) -> None:
    with pytest.raises(InputError) as caught:
        Layout.of(Header(PATH, values))
    assert caught.value.code == code


def test_numbers_of_bits_that_are_not_said() -> None:
    how = Layout.of(Header(PATH, {"BitsAllocated": "16", "Rows": "40", "Columns": "37"}))
    assert how == layout(16)
    assert how.range == (0, 65535)
    assert replace(how, signed=True, stored=12).range == (-2048, 2047)
