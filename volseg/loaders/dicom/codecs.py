"""From the bytes of one DICOM frame to its stored values: which codec reads which transfer syntax, and what that means.

What a codec gives are numbers of its own precision and sign; the header says which bits of a pixel count (BitsStored,
HighBit) and whether they are signed (PixelRepresentation). The two disagree in real files, and `decode` settles how.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from volseg.errors import InputError
from volseg.loaders.dicom import codec_process
from volseg.loaders.dicom.codec_process import Codecs
from volseg.loaders.dicom.header import Header

Cells = npt.NDArray[Any]


@dataclass(frozen=True)
class Codec:
    """How a transfer syntax is decoded.

    Attributes
    ----------
    name
        Name of the codec in `codec_process`.
    exact
        Whether the bits of a pixel come back as they went in.
    apart
        Whether damaged data can hang or crash the codec: it then runs in a process of its own.
    """

    name: str
    exact: bool = True
    apart: bool = False


_JPEG = "1.2.840.10008.1.2.4."
#: By transfer syntax. jpeg8 is libjpeg-turbo (8 and 12 bits, all predictors of lossless), jpegls CharLS, jpeg2k
#: OpenJPEG, htj2k OpenJPH, jpegxl libjxl: all of them in imagecodecs.
CODECS = {
    "1.2.840.10008.1.2.5": Codec("rle"),
    "1.2.840.10008.1.2.8.1": Codec("deflate"),
    f"{_JPEG}50": Codec("jpeg8", exact=False),  # baseline
    f"{_JPEG}51": Codec("jpeg8", exact=False),  # extended, 12 bits
    f"{_JPEG}57": Codec("jpeg8"),  # lossless, any predictor
    f"{_JPEG}70": Codec("jpeg8"),  # lossless, first-order predictor
    f"{_JPEG}80": Codec("jpegls", apart=True),
    f"{_JPEG}81": Codec("jpegls", exact=False, apart=True),
    f"{_JPEG}90": Codec("jpeg2k", apart=True),
    f"{_JPEG}91": Codec("jpeg2k", exact=False, apart=True),
    f"{_JPEG}201": Codec("htj2k", apart=True),
    f"{_JPEG}202": Codec("htj2k", apart=True),
    f"{_JPEG}203": Codec("htj2k", exact=False, apart=True),
    f"{_JPEG}110": Codec("jpegxl", apart=True),
    f"{_JPEG}111": Codec("jpegxl", exact=False, apart=True),
    f"{_JPEG}112": Codec("jpegxl", exact=False, apart=True),
}
#: Uncompressed: implicit, explicit, deflated and big-endian.
NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"))
#: Pixels that the files don't hold, and films.
_ELSEWHERE = (f"{_JPEG}94", f"{_JPEG}95", f"{_JPEG}204", f"{_JPEG}205", "1.2.840.10008.1.2.7.")
_FILMS = tuple(f"{_JPEG}{number}" for number in range(100, 109))


def refused_syntax(syntax: str) -> str | None:
    """Why pixels in this transfer syntax can't be read and what would help; None where they can."""
    if syntax in NATIVE or syntax in CODECS:
        return None
    name = UID(syntax).name if syntax else "an unnamed transfer syntax"
    if syntax.startswith(_ELSEWHERE):
        return f"{name}: the pixels aren't in the files; fetch them from their server as an uncompressed series"
    if syntax.startswith(_FILMS):
        return f"{name}: a film, no slices; export the series uncompressed"
    return f"no codec for {name}; export the series uncompressed, or decompress it (gdcmconv --raw, dcmdjpeg)"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a header says that the pixels of a frame are stored.

    Attributes
    ----------
    allocated, stored, high
        Bits of a pixel's cell, how many of them count, and the number of the highest that does.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @classmethod
    def of(cls, header: Header) -> Self:
        """Layout that a header states.

        Raises
        ------
        InputError
            ``unsupported`` where a cell has another size than 8, 16 or 32 bits, ``unreadable`` where the numbers
            contradict each other.
        """
        allocated = header.integer("BitsAllocated") or 0
        if allocated not in (8, 16, 32):
            raise InputError(
                f"{header.text('BitsAllocated') or 'no'} bits a pixel; 8, 16 and 32 are read",
                code="unsupported",
                path=header.path,
            )
        stored = header.integer("BitsStored") or allocated
        high = header.integer("HighBit")
        high = stored - 1 if high is None else high
        if not 1 <= stored <= high + 1 <= allocated:
            raise InputError(
                f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict each other;"
                " export the series anew",
                code="unreadable",
                path=header.path,
            )
        return cls(
            rows=header.integer("Rows") or 0,
            columns=header.integer("Columns") or 0,
            allocated=allocated,
            stored=stored,
            high=high,
            signed=header.integer("PixelRepresentation") == 1,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def cell(self) -> np.dtype[Any]:
        """Type of a cell, as unsigned bits."""
        return np.dtype(f"u{self.allocated // 8}")

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest stored value."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)

    def values(self, cells: Cells, path: Path) -> Cells:
        """Stored values of cells [row, column] as they lie in the file, without what the other bits hold.

        Raises
        ------
        InputError
            Code ``unsupported``: the values lie above bit 0, and the bits below them aren't zero. Whether such a file
            keeps something else there, or is wrong about HighBit, can't be known.
        """
        low = self.high + 1 - self.stored
        if low:
            if (cells & (2**low - 1)).any():
                raise InputError(
                    f"HighBit {self.high} with BitsStored {self.stored}, and bits below the values that aren't zero;"
                    " export the series anew",
                    code="unsupported",
                    path=path,
                )
            cells = cells >> np.uint8(low)
        return wrapped(cells, self.stored, signed=self.signed)


def wrapped(cells: Cells, bits: int, *, signed: bool) -> Cells:
    """Numbers that the lowest `bits` of integers are: what lies above is dropped, and the sign extended."""
    size = cells.itemsize * 8
    kind = np.dtype(f"{'i' if signed else 'u'}{cells.itemsize}")
    # A view while the bytes are in this machine's order: only then is the sign where it is looked for.
    own = cells if cells.dtype.isnative else cells.astype(cells.dtype.newbyteorder("="))
    if bits >= size:
        return own.view(kind)
    if not signed:
        return np.asarray(own.view(kind) & kind.type(2**bits - 1))
    shifted = (own << np.uint8(size - bits)).view(kind)
    shifted >>= size - bits
    return shifted


def decode(frame: bytes, syntax: UID, layout: Layout, codecs: Codecs, path: Path) -> Cells:
    """Stored values of one compressed frame.

    Parameters
    ----------
    codecs
        Processes for the codecs that need one.
    path
        File, for the message.

    Returns
    -------
    NDArray
        [row, column], signed where the header says so.

    Raises
    ------
    InputError
        ``unreadable`` where the data are damaged or contradict the header, ``unsupported`` where their sign is
        ambiguous.
    """
    codec = CODECS[syntax]
    run = codecs.decode if codec.apart else codec_process.decode
    try:
        if codec.name in ("rle", "deflate"):
            return layout.values(run(codec.name, frame, layout.shape, layout.cell), path)
        said = None if codec.name == "jpegxl" else _said(codec, frame, layout)
        numbers = run(codec.name, frame, layout.shape, layout.cell if said is None else said.dtype)
        if said is None:
            said = _Said(*layout.shape, 1, numbers.itemsize * 8, numbers.dtype.kind == "i")
    except InputError:
        raise
    except Exception as error:
        # Codecs raise what they like; each of it means that this file's pixels can't be had.
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"pixels can't be decoded ({syntax.name}): {why}; copy or export the file again",
            code="unreadable",
            path=path,
        ) from error
    return _as_stored(numbers, said, codec, layout, path)


@dataclass(frozen=True)
class _Said:
    """What a compressed image says of itself."""

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        size = next(size for size in (1, 2, 4) if self.bits <= 8 * size)
        return np.dtype(f"{'i' if self.signed else 'u'}{size}")


def _said(codec: Codec, frame: bytes, layout: Layout) -> _Said:
    """Read a compressed image's own header, and hold it against the file's before a codec believes it."""
    # Behind the end there may be a byte or more of padding. The codecs make up what is absent before it.
    if b"\xff\xd9" not in frame[-64:]:
        raise ValueError("the compressed data are cut short")
    said = _said_jpeg(frame) if codec.name.startswith("jpeg") and codec.name != "jpeg2k" else _said_jpeg2000(frame)
    if (said.rows, said.columns) != layout.shape:
        raise ValueError(f"{said.rows} x {said.columns} pixels in the image, {layout.rows} x {layout.columns} said")
    if said.components != 1:
        raise ValueError(f"{said.components} components")
    if not 1 <= said.bits <= 32:
        raise ValueError(f"{said.bits} bits a pixel")
    return said


def _said_jpeg(frame: bytes) -> _Said:
    """Of JPEG and JPEG-LS: the segment that starts a frame (SOF)."""
    position = 2
    while frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in (0xF7, *range(0xC0, 0xD0)) and marker not in (0xC4, 0xC8, 0xCC):
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return _Said(rows, columns, components, bits, False)
        # A marker may be preceded by fill bytes.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise ValueError("no JPEG image")


def _said_jpeg2000(frame: bytes) -> _Said:
    """Of JPEG 2000, high throughput or not: the segment of sizes (SIZ)."""
    # At once, or behind the boxes of a JP2 file, which don't belong into DICOM and are found there.
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0:
        raise ValueError("no JPEG 2000 image")
    sizes = struct.unpack_from(">8L", frame, start + 8)
    components, depth, across, down = struct.unpack_from(">H3B", frame, start + 40)
    right, bottom, left, top, wide, high, tile_left, tile_top = sizes
    if min(wide, high) < 1 or (across, down) != (1, 1):
        raise ValueError("damaged sizes")
    tiles = -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high)
    if not 1 <= tiles <= 65535:
        raise ValueError(f"{tiles} tiles")
    return _Said(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def _as_stored(numbers: Cells, said: _Said, codec: Codec, layout: Layout, path: Path) -> Cells:
    """Settle precision and sign where the compressed image and the header differ."""
    if layout.high != layout.stored - 1:
        raise InputError(
            f"HighBit {layout.high} with BitsStored {layout.stored} in compressed pixels; export the series"
            " uncompressed",
            code="unsupported",
            path=path,
        )
    if layout.signed and not said.signed:
        # JPEG and JPEG-LS know no sign, and some JPEG 2000 encoders don't say it: the bits are a two's complement. A
        # lossy codec blurs the step from -1 to 0; JPEG-LS alone keeps each value within its bound of error.
        if not codec.exact and codec.name != "jpegls" and (numbers >> (said.bits - 1)).any():
            raise _sign_unknown(said, layout, path)
        numbers = wrapped(numbers, min(said.bits, layout.stored) if codec.exact else said.bits, signed=True)
    elif said.signed and not layout.signed and numbers.min() < 0:
        raise _sign_unknown(said, layout, path)
    if said.bits <= layout.stored:
        return numbers
    # More bits than count: whatever the whole cell held. A lossy codec's error may carry a value over the end.
    return wrapped(numbers, layout.stored, signed=layout.signed) if codec.exact else np.clip(numbers, *layout.range)


def _sign_unknown(said: _Said, layout: Layout, path: Path) -> InputError:
    signs = {True: "signed", False: "unsigned"}
    return InputError(
        f"the compressed image has {signs[said.signed]} values where the header says {signs[layout.signed]};"
        " export the series uncompressed",
        code="unsupported",
        path=path,
    )
