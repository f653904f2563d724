"""How pixels are stored, rescaled and compressed, and pixels that are damaged."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.geometry.series import Series, compressed, ct, encode, mr, set_encapsulated, set_pixels, write
from benchmarks.geometry.truth import Array, Image, Truth, refuse, right, row

MIDDLE = 5


def _in(folder: Path, syntax: UID) -> Truth:
    series = ct()
    write(folder, series.files, syntax=syntax)
    return right(series.image())


@row("dicom")
def implicit_little_endian(folder: Path) -> Truth:
    """Implicit VR, little endian."""
    return _in(folder, ImplicitVRLittleEndian)


@row("dicom")
def explicit_big_endian(folder: Path) -> Truth:
    """Explicit VR, big endian (retired)."""
    return _in(folder, ExplicitVRBigEndian)


@row("dicom")
def deflated(folder: Path) -> Truth:
    """The data set as a whole is deflated."""
    return _in(folder, DeflatedExplicitVRLittleEndian)


@row("dicom")
def rle(folder: Path) -> Truth:
    """RLE lossless."""
    return _in(folder, RLELossless)


@row("dicom")
def jpeg_ls(folder: Path) -> Truth:
    """JPEG-LS lossless."""
    return _in(folder, JPEGLSLossless)


@row("dicom")
def jpeg_2000(folder: Path) -> Truth:
    """JPEG 2000 lossless."""
    return _in(folder, JPEG2000Lossless)


@row("dicom")
def jpeg_2000_in_fragments(folder: Path) -> Truth:
    """JPEG 2000 lossless, each frame in three fragments."""
    series = ct()
    for dataset in series.files:
        encode(dataset, JPEG2000Lossless)
        code = compressed(dataset)
        set_encapsulated(dataset, [code], fragments=3)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def jpeg_baseline(folder: Path) -> Truth:
    """JPEG baseline of 8 bits, which is lossy: what a decoder gives may be off by 1."""
    from PIL import Image as Picture

    series = mr()
    decoded = np.empty(series.stored.shape, np.uint8)
    for index, dataset in enumerate(series.files):
        pixels = series.stored[:, :, index].T.astype(np.uint8)
        set_pixels(dataset, pixels)
        buffer = io.BytesIO()
        Picture.fromarray(pixels).save(buffer, "jpeg", quality=95)
        decoded[:, :, index] = np.asarray(Picture.open(buffer)).T
        set_encapsulated(dataset, [buffer.getvalue() + b"\0" * (len(buffer.getvalue()) % 2)])
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    write(folder, series.files)
    series.stored = decoded
    return right(series.image(value_tolerance=1))


@row("dicom")
def mixed_transfer_syntaxes(folder: Path) -> Truth:
    """One half of the slices is compressed, the other isn't."""
    series = ct()
    write(folder, series.files[::2], syntax=JPEG2000Lossless)
    write(folder, series.files[1::2], name=lambda index: f"U{index}.dcm")
    return right(series.image())


def _rescaled(series: Series, slopes: Array, intercepts: Array) -> Image:
    return replace(series.image(), values=series.stored * slopes + intercepts)


@row("dicom")
def slope_per_slice(folder: Path) -> Truth:
    """Each slice has a RescaleSlope of its own, as in PET."""
    series = ct()
    slopes = 0.5 + 0.125 * np.arange(12)
    series.each("RescaleSlope", lambda index: str(slopes[index]))
    write(folder, series.files)
    return right(_rescaled(series, slopes, np.full(12, -1024.0)))


@row("dicom")
def intercept_per_slice(folder: Path) -> Truth:
    """Each slice has a RescaleIntercept of its own, all negative."""
    series = ct()
    intercepts = -1024.0 + 8 * np.arange(12)
    series.each("RescaleIntercept", lambda index: str(intercepts[index]))
    write(folder, series.files)
    return right(_rescaled(series, np.ones(12), intercepts))


@row("dicom")
def rescale_absent_in_one(folder: Path) -> Truth:
    """One slice has no rescale elements: its stored values are its values."""
    series = ct()
    series.put([MIDDLE], RescaleSlope=None, RescaleIntercept=None)
    write(folder, series.files)
    return right(_rescaled(series, np.ones(12), np.where(np.arange(12) == MIDDLE, 0.0, -1024.0)))


@row("dicom")
def slope_of_zero(folder: Path) -> Truth:
    """RescaleSlope is 0; taken to the letter, every value is the intercept."""
    series = ct()
    series.put(RescaleSlope="0")
    write(folder, series.files)
    return refuse("unreadable", also=[[_rescaled(series, np.zeros(12), np.full(12, -1024.0))]])


@row("dicom")
def mr_with_rescale(folder: Path) -> Truth:
    """An MR series with a slope of 2.5 and an intercept of -3."""
    series = mr()
    series.put(RescaleSlope="2.5", RescaleIntercept="-3")
    write(folder, series.files)
    return right(_rescaled(series, np.full(12, 2.5), np.full(12, -3.0)))


def _stored_as(source: Callable[..., Series], values: Callable[[Array], Array]) -> Series:
    return source(stored=values(source().stored))


@row("dicom")
def eight_bits(folder: Path) -> Truth:
    """Pixels of 8 bits, an odd number of them, padded with a byte."""
    series = _stored_as(mr, lambda stored: stored[:, :41].astype(np.uint8))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def sixteen_bits_unsigned(folder: Path) -> Truth:
    """Unsigned 16-bit values up to 65535."""
    series = _stored_as(ct, lambda stored: (stored.astype(np.uint32) * 27 % 65536).astype(np.uint16))
    series.stored[0, 0, :] = 65535
    for index, dataset in enumerate(series.files):
        set_pixels(dataset, series.stored[:, :, index].T)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def thirty_two_bits(folder: Path) -> Truth:
    """Signed 32-bit values beyond 16 bits."""
    series = _stored_as(ct, lambda stored: stored.astype(np.int32) * 1000 - 700_000)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def twelve_bits_under_overlay(folder: Path) -> Truth:
    """Values of 12 bits, with an overlay's bits above them in the same words."""
    series = ct()
    for index, dataset in enumerate(series.files):
        pixels = series.stored[:, :, index].T.copy()
        pixels[10:20, 10:20] |= 0x8000
        set_pixels(dataset, pixels)
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.add_new(0x60000010, "US", dataset.Rows)
        dataset.add_new(0x60000011, "US", dataset.Columns)
        dataset.add_new(0x60000040, "CS", "G")
        dataset.add_new(0x60000050, "SS", [1, 1])
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 15)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def twelve_bits_signed(folder: Path) -> Truth:
    """Signed values of 12 bits whose sign isn't continued into the four bits above."""
    series = _stored_as(ct, lambda stored: (stored.astype(np.int16) - 1000).clip(-2048, 2047))
    for index, dataset in enumerate(series.files):
        set_pixels(dataset, (series.stored[:, :, index].T & 0x0FFF).astype(np.int16))
        dataset.BitsStored, dataset.HighBit = 12, 11
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def twelve_bits_at_the_top(folder: Path) -> Truth:
    """Values of 12 bits in the upper bits of 16 (HighBit 15), which the standard once allowed."""
    series = ct()
    for index, dataset in enumerate(series.files):
        set_pixels(dataset, series.stored[:, :, index].T << 4)
        dataset.BitsStored, dataset.HighBit = 12, 15
    write(folder, series.files)
    return refuse("unsupported", "unreadable", also=[[series.image()]])


@row("dicom")
def mixed_signedness(folder: Path) -> Truth:
    """Every second slice is stored signed, the others unsigned with values above 32767."""
    series = _stored_as(ct, lambda stored: stored.astype(np.int32) * 16)
    for index, dataset in enumerate(series.files):
        if index % 2:
            series.stored[:, :, index] -= 20_000
        set_pixels(dataset, series.stored[:, :, index].T.astype(np.int16 if index % 2 else np.uint16))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def monochrome1(folder: Path) -> Truth:
    """MONOCHROME1: low values are shown bright; the values are what they are."""
    series = ct()
    series.put(PhotometricInterpretation="MONOCHROME1")
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def padding_value(folder: Path) -> Truth:
    """Pixels outside the field of view hold PixelPaddingValue, -2000."""
    series = _stored_as(ct, lambda stored: stored.astype(np.int16))
    series.stored[:6] = -2000
    for index, dataset in enumerate(series.files):
        set_pixels(dataset, series.stored[:, :, index].T)
        dataset.add_new("PixelPaddingValue", "SS", -2000)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def rgb(folder: Path) -> Truth:
    """Colour pixels (RGB) with a scan's geometry; three volumes, one a colour, are faithful."""
    series = mr()
    for index, dataset in enumerate(series.files):
        pixels = series.stored[:, :, index].T.astype(np.uint8)
        set_pixels(dataset, pixels)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.PixelData = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1).tobytes()
    write(folder, series.files)
    red = series.stored.astype(np.uint8)
    return refuse("not-scalar", also=[[replace(series.image(), values=part) for part in (red, red // 2, 255 - red)]])


@row("dicom")
def palette_colour(folder: Path) -> Truth:
    """Pixels that are indices into a colour palette; three volumes, one a colour, are faithful."""
    series = mr()
    for index, dataset in enumerate(series.files):
        set_pixels(dataset, series.stored[:, :, index].T.astype(np.uint8))
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        for colour, factor in (("Red", 3), ("Green", 5), ("Blue", 7)):
            table = bytes(value * factor % 256 for value in range(256))
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
            dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table)
    write(folder, series.files)
    colours = [replace(series.image(), values=series.stored * factor % 256) for factor in (3, 5, 7)]
    return refuse("not-scalar", also=[colours])


@row("dicom")
def no_pixels(folder: Path) -> Truth:
    """The files are headers without pixels."""
    series = ct()
    series.put(PixelData=None)
    write(folder, series.files)
    return refuse("unreadable", "no-image")


@row("dicom")
def truncated_pixels(folder: Path) -> Truth:
    """One file is cut short in its pixels."""
    paths = write(folder, ct().files)
    paths[MIDDLE].write_bytes(paths[MIDDLE].read_bytes()[:-1000])
    return refuse("unreadable")


@row("dicom")
def truncated_header(folder: Path) -> Truth:
    """One file is cut short in its header."""
    paths = write(folder, ct().files)
    paths[MIDDLE].write_bytes(paths[MIDDLE].read_bytes()[:700])
    return refuse("unreadable", "missing-slice")


@row("dicom")
def truncated_compressed(folder: Path) -> Truth:
    """One file is cut short in its compressed pixels."""
    paths = write(folder, ct().files, syntax=JPEG2000Lossless)
    paths[MIDDLE].write_bytes(paths[MIDDLE].read_bytes()[:-300])
    return refuse("unreadable")


@row("dicom")
def half_a_codestream(folder: Path) -> Truth:
    """One slice's JPEG 2000 codestream is cut to half, in a file that is otherwise whole."""
    series = ct()
    encode(series.files[MIDDLE], JPEG2000Lossless)
    code = compressed(series.files[MIDDLE])
    set_encapsulated(series.files[MIDDLE], [code[: len(code) // 4 * 2]])
    write(folder, series.files, syntax=JPEG2000Lossless)
    return refuse("unreadable")


@row("dicom")
def rle_cut_short(folder: Path) -> Truth:
    """One slice's RLE segments are cut to half, in a file that is otherwise whole."""
    series = ct()
    encode(series.files[MIDDLE], RLELossless)
    code = compressed(series.files[MIDDLE])
    set_encapsulated(series.files[MIDDLE], [code[: len(code) // 4 * 2]])
    write(folder, series.files, syntax=RLELossless)
    return refuse("unreadable")


@row("dicom")
def too_many_rows(folder: Path) -> Truth:
    """Rows says 60 in every slice where the pixels are those of 40."""
    series = ct()
    series.put(Rows=60)
    write(folder, series.files)
    return refuse("unreadable")


@row("dicom")
def too_few_rows(folder: Path) -> Truth:
    """Rows says 30 in every slice where the pixels are those of 40."""
    series = ct()
    series.put(Rows=30)
    write(folder, series.files)
    return refuse("unreadable")


@row("dicom")
def rows_and_columns_swapped(folder: Path) -> Truth:
    """One slice says 48 rows of 40 columns where it has 40 of 48, as the others do."""
    series = ct()
    series.put([MIDDLE], Rows=48, Columns=40)
    write(folder, series.files)
    return refuse("mixed-size")


@row("dicom")
def rows_of_65535(folder: Path) -> Truth:
    """Every header claims 65535 x 65535 pixels."""
    series = ct()
    series.put(Rows=65535, Columns=65535)
    write(folder, series.files)
    return refuse("unreadable")


@row("dicom")
def compressed_rows_of_65535(folder: Path) -> Truth:
    """Every header claims 65535 x 65535 pixels where the compressed image has 48 x 40."""
    series = ct()
    for dataset in series.files:
        encode(dataset, RLELossless)
    series.put(Rows=65535, Columns=65535)
    write(folder, series.files)
    return refuse("unreadable")


@row("dicom")
def wrong_transfer_syntax(folder: Path) -> Truth:
    """One file says JPEG 2000 where its pixels are uncompressed."""
    series = ct()
    paths = write(folder, series.files)
    raw = paths[MIDDLE].read_bytes()
    said = str(ExplicitVRLittleEndian).encode() + b"\0"
    assert said in raw
    claimed = b"1.2.840.10008.1.2.4.90"
    at = raw.index(said) - 2
    grown = int.from_bytes(raw[140:144], "little") + len(claimed) - len(said)
    raw = (
        raw[:140]
        + grown.to_bytes(4, "little")
        + raw[144:at]
        + len(claimed).to_bytes(2, "little")
        + claimed
        + raw[at + 2 + len(said) :]
    )
    paths[MIDDLE].write_bytes(raw)
    # The bytes themselves show that the pixels are plain.
    return refuse("unreadable", "unsupported", also=[[series.image()]])
