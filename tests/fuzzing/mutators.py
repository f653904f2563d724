"""Damage, by what a format is made of as well as by bytes; the same random numbers give the same damage."""

from __future__ import annotations

import gzip
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset

Mutator = Callable[[Random, bytes], bytes]

_INTEGERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_TEXTS = (
    "",
    "0",
    "-1",
    "1",
    "2",
    "65535",
    "99999999999",
    "1e308",
    "1e-308",
    "-1e400",
    "nan",
    "inf",
    "0.5",
    "x",
    "\\",
    "\0",
)
_LONGEST = 1 << 20


def mutate(random: Random, format_name: str, data: bytes) -> bytes:
    """Damage `data` one to four times."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        own = _OWN.get(format_name.split()[0])
        if format_name in _PACKED and random.random() < 0.4:
            data = _inside(random, format_name, data)
        elif own and random.random() < 0.5:
            data = own(random, data)
        else:
            data = random.choice(_BYTES)(random, data)
    return data[:_LONGEST]


# of any file


def _place(random: Random, data: bytes) -> int:
    """A position, more often near the start, where headers are."""
    return int(len(data) * random.random() ** random.choice((1, 2, 4)))


def _flip_bits(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        changed[_place(random, data)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set_integer(random: Random, data: bytes) -> bytes:
    size = random.choice((1, 2, 4, 8))
    value = random.choice((*_INTEGERS, len(data), len(data) - 1)) % 256**size
    return _overwrite(data, _place(random, data), value.to_bytes(size, random.choice(("little", "big"))))


def _set_float(random: Random, data: bytes) -> bytes:
    value = random.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")))
    return _overwrite(data, _place(random, data), struct.pack(random.choice(("<f", ">f", "<d", ">d")), value))


def _overwrite(data: bytes, where: int, part: bytes) -> bytes:
    return (data[:where] + part + data[where + len(part) :])[: max(len(data), 1)]


def _chunk(random: Random, data: bytes) -> tuple[int, int]:
    start = _place(random, data)
    return start, start + random.choice((1, 2, 4, 8, 16, 64, 256))


def _splice(random: Random, data: bytes) -> bytes:
    start, end = _chunk(random, data)
    return _overwrite(data, _place(random, data), data[start:end])


def _insert(random: Random, data: bytes) -> bytes:
    start, end = _chunk(random, data)
    where = _place(random, data)
    part = data[start:end] if random.random() < 0.5 else random.randbytes(random.choice((1, 2, 4, 8, 32)))
    return data[:where] + part * random.choice((1, 1, 1, 100)) + data[where:]


def _delete(random: Random, data: bytes) -> bytes:
    start, end = _chunk(random, data)
    return data[:start] + data[end:]


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _change_number(random: Random, data: bytes) -> bytes:
    """Replace a number that is written as text."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not found:
        return _flip_bits(random, data)
    match = random.choice(found)
    return data[: match.start()] + random.choice(_TEXTS).encode() + data[match.end() :]


_BYTES: tuple[Mutator, ...] = (
    _flip_bits,
    _flip_bits,
    _set_integer,
    _set_integer,
    _set_float,
    _splice,
    _insert,
    _delete,
    _truncate,
    _change_number,
)

# of a format


def _dicom(random: Random, data: bytes) -> bytes:
    """Change, empty, delete or copy an element, at the top or in a sequence, and write the file anew."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            _change_element(random, _some_level(random, dataset))
            if random.random() < 0.1:
                _change_element(random, dataset.file_meta)
            buffer = io.BytesIO()
            dataset.save_as(buffer)
        return buffer.getvalue()
    except Exception:
        # What is damaged too far for pydicom is damaged further by bytes.
        return _set_integer(random, data)


def _some_level(random: Random, dataset: Dataset) -> Dataset:
    sequences = [element for element in dataset if element.VR == "SQ" and len(element.value)]
    if sequences and random.random() < 0.8:
        return _some_level(random, random.choice(random.choice(sequences).value))
    return dataset


def _change_element(random: Random, dataset: Dataset) -> None:
    element = random.choice(list(dataset))
    how = random.randrange(6)
    if how == 0:
        del dataset[element.tag]
    elif how == 1:
        dataset[element.tag].value = None if element.VR != "SQ" else []
    elif element.VR == "SQ":
        items = list(element.value)
        items += items[:1] if how == 2 else []
        random.shuffle(items)
        element.value = items[random.randint(0, 1) :]
    elif element.VR in ("US", "SS", "UL", "SL"):
        bits = 16 if element.VR in ("US", "SS") else 32
        value = random.choice(_INTEGERS) % 2**bits
        element.value = value - 2**bits if element.VR[0] == "S" and value >= 2 ** (bits - 1) else value
    elif element.VR in ("OB", "OW"):
        element.value = random.choice(_BYTES)(random, bytes(element.value))
    else:
        # As bytes of unknown meaning: pydicom would refuse to write what breaks a rule.
        values = [str(value) for value in (element.value if element.VM > 1 else [element.value])]
        values[random.randrange(len(values))] = random.choice(_TEXTS)
        values = values[: random.choice((1, len(values), len(values)))] * random.choice((1, 1, 2))
        text = "\\".join(values).encode("latin-1", "replace")
        dataset.add_new(element.tag, "UN", text + b" " * (len(text) % 2))


def _nifti(random: Random, data: bytes) -> bytes:
    """Set a field of the header."""
    kind = nib.Nifti2Header if data[:4] == b"\x1c\x02\x00\x00" else nib.Nifti1Header
    dtype = kind.template_dtype
    if len(data) < dtype.itemsize:
        return _set_integer(random, data)
    header = np.frombuffer(data[: dtype.itemsize], dtype).copy()
    field = header[random.choice(dtype.names)].reshape(-1)
    where = random.randrange(field.size)
    if field.dtype.kind == "f":
        field[where] = random.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")))
    elif field.dtype.kind == "S":
        field[where] = random.randbytes(2)
    else:
        bits = field.dtype.itemsize * 8
        value = random.choice(_INTEGERS) % 2**bits
        field[where] = value - 2**bits if field.dtype.kind == "i" and value >= 2 ** (bits - 1) else value
    return header.tobytes() + data[dtype.itemsize :]


def _lines(random: Random, data: bytes) -> bytes:
    """Delete, copy or swap lines of a header in text, or change a word of one."""
    end = data.find(b"\n\n") if data.startswith(b"NRRD") else data.find(b"\n", data.find(b"ElementDataFile"))
    lines, rest = data[:end].split(b"\n"), data[end:]
    where = random.randrange(len(lines))
    how = random.randrange(5)
    if how == 0:
        del lines[where]
    elif how == 1:
        lines.insert(random.randrange(len(lines)), lines[where])
    elif how == 2:
        other = random.randrange(len(lines))
        lines[where], lines[other] = lines[other], lines[where]
    elif how == 3:
        words = re.split(rb"([ ,()=:]+)", lines[where])
        words[random.randrange(len(words))] = random.choice((*_TEXTS, "none", "LOCAL", "LIST", "../x", "list")).encode()
        lines[where] = b"".join(words)
    else:
        lines[where] = _change_number(random, lines[where])
    return b"\n".join(lines) + rest


def _zip_members(random: Random, data: bytes) -> bytes:
    """Rename, double or cut a member, or change the sizes that the directory claims."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return _set_integer(random, data)
    where = random.randrange(len(members) or 1)
    if not members:
        return data
    name, content = members[where]
    names = (
        "../" + name,
        "/" + name,
        "a\\..\\..\\b",
        "",
        "x/",
        "\x00",
        "\u00e9/\u65e5.dcm",
        name + ".zip",
        "study.zip",
    )
    members[where] = (random.choice(names), content) if random.random() < 0.5 else (name, _flip_bits(random, content))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    packed = buffer.getvalue()
    if random.random() < 0.3:
        directory = packed.rfind(b"PK\x01\x02")
        return _overwrite(packed, directory + random.choice((8, 10, 20, 24, 28, 42)), random.randbytes(4))
    return packed


_OWN: dict[str, Mutator] = {
    "dicom": _dicom,
    "nifti": _nifti,
    "analyze": _nifti,
    "nrrd": _lines,
    "metaimage": _lines,
    "zip": _zip_members,
}

# of what is packed inside

_PACKED = ("nifti gz", "nrrd gzip", "metaimage zlib", "dicom deflated", "zip")


def _inside(random: Random, format_name: str, data: bytes) -> bytes:
    """Damage what is compressed, and compress it again: a checksum must not be all that keeps damage out."""
    try:
        if format_name == "nifti gz":
            return gzip.compress(_nifti(random, gzip.decompress(data)), mtime=0)
        if format_name == "nrrd gzip":
            header, body = data.split(b"\n\n", 1)
            content = random.choice(_BYTES)(random, gzip.decompress(body))
            return header + b"\n\n" + gzip.compress(content, mtime=0)
        if format_name == "metaimage zlib":
            end = data.index(b"LOCAL\n") + 6
            return data[:end] + zlib.compress(random.choice(_BYTES)(random, zlib.decompress(data[end:])))
        if format_name == "zip":
            return _zip_members(random, data)
        end = _end_of_meta(data)
        packer = zlib.compressobj(wbits=-15)
        content = random.choice(_BYTES)(random, zlib.decompress(data[end:], wbits=-15))
        return data[:end] + packer.compress(content) + packer.flush()
    except Exception:
        return _flip_bits(random, data)


def _end_of_meta(data: bytes) -> int:
    """Where the file meta information of a DICOM file ends, by its group length."""
    return 144 + int.from_bytes(data[140:144], "little")
