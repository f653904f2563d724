"""The voxels of a DICOM series: decode, rescale, and hash what was read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

from volseg.errors import InputError
from volseg.loaders.candidate import Candidate
from volseg.loaders.dicom_header import Header, read_header, tolerant, transfer_syntax
from volseg.volume import DicomSource, Instance, Source, Volume, Voxels

#: Slices decoded at the same time; codecs run outside Python's lock.
THREADS = 4


def read(candidate: Candidate) -> Volume:
    """Voxels of a DICOM series.

    Returns
    -------
    Volume
        [column, row, slice], slices ascending along row x column direction. Integers where every slope is 1 and every
        intercept whole, else float32; padding values are left as they are.

    Raises
    ------
    InputError
        Codes ``unreadable`` (damaged since it was found, or compressed data that no codec can decode) and
        ``unsupported``.
    """
    geometry = candidate.geometry
    assert geometry is not None  # a usable candidate has one
    columns, rows, slices = geometry.shape
    with tolerant(), ThreadPoolExecutor(THREADS) as pool:
        headers = [_header(path) for path in candidate.files]
        origin = _source(headers)
        # Stored [slice, row, column] and shown reversed, without moving a byte.
        array = np.empty((slices, rows, columns), _dtype(headers))
        digests = list(pool.map(partial(_fill, array), range(slices), headers))
    source = Source(
        kind="dicom",
        name=candidate.name,
        path=candidate.path,
        modality=candidate.modality,
        description=candidate.description,
        sha256=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        notes=candidate.notes,
        dicom=origin,
    )
    return Volume(array.transpose(2, 1, 0), geometry, source)


def _header(path: Path) -> Header:
    header = read_header(path)
    if not isinstance(header, Header) or header.problem:
        raise InputError("changed since it was found", code="unreadable", path=path)
    return header


def _source(headers: Sequence[Header]) -> DicomSource:
    first = headers[0]
    instances = tuple(
        Instance(path=header.path, sop_class_uid=header.sop_class_uid, sop_instance_uid=header.sop_instance_uid)
        for header in headers
    )
    unique = len({instance.sop_instance_uid for instance in instances}) == len(instances)
    return DicomSource(
        study_uid=first.text("StudyInstanceUID"),
        series_uid=first.text("SeriesInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        instances=instances,
        identity=unique and not any(header.blank_identity for header in headers),
    )


def _rescale(header: Header) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where they aren't given."""
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        numbers = header.numbers(keyword, 1)
        if header.text(keyword) and numbers is None:
            raise InputError(f"{keyword} is {header.text(keyword)!r}, no number", code="unreadable", path=header.path)
        values.append(numbers[0] if numbers else default)
    if values[0] == 0:
        raise InputError("RescaleSlope is 0: all values would be the same", code="unreadable", path=header.path)
    return values[0], values[1]


def _dtype(headers: Sequence[Header]) -> np.dtype[Any]:
    """Type that holds the rescaled values of every slice: the smallest of int16 and int32, else float32."""
    lowest, highest = 0.0, 0.0
    for header in headers:
        slope, intercept = _rescale(header)
        if slope != 1 or intercept != int(intercept):
            return np.dtype(np.float32)
        bits = header.integer("BitsStored") or header.integer("BitsAllocated") or 16
        signed = header.integer("PixelRepresentation") == 1
        lowest = min(lowest, intercept - (2 ** (bits - 1) if signed else 0))
        highest = max(highest, intercept + 2 ** (bits - 1 if signed else bits) - 1)
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def _fill(array: Voxels, index: int, header: Header) -> str:
    """Decode one file into ``array[index]``; return the SHA-256 of its bytes."""
    raw = header.path.read_bytes()
    stored = _decoded(raw, header.path)
    if stored.shape != array.shape[1:] or stored.dtype.kind not in "iu":
        raise InputError(f"pixels {stored.shape} of {stored.dtype}", code="unsupported", path=header.path)
    slope, intercept = _rescale(header)
    if array.dtype.kind == "i":
        np.add(stored, int(intercept), out=array[index], dtype=array.dtype, casting="unsafe")
    else:
        array[index] = stored * np.float64(slope) + intercept
    return hashlib.sha256(raw).hexdigest()


def _plugin(syntax: UID) -> str:
    """Codec to decode with, by pydicom's name; empty for pydicom's own choice.

    gdcm comes last where there is another: it ends the whole process on some damaged JPEG 2000 images.
    """
    if syntax not in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes):
        return ""
    available = get_decoder(syntax).available_plugins
    return next((name for name in available if name != "gdcm"), "")


def _decoded(raw: bytes, path: Path) -> npt.NDArray[Any]:
    """Stored values [row, column]."""
    syntax = "DICOM"
    try:
        dataset = pydicom.dcmread(io.BytesIO(raw), force=True)
        uid = transfer_syntax(dataset)
        syntax = uid.name
        dataset.file_meta.TransferSyntaxUID = uid
        # Absent from some converters' files, and `dicom` has refused what isn't so.
        dataset.setdefault("SamplesPerPixel", 1)
        dataset.setdefault("PhotometricInterpretation", "MONOCHROME2")
        return pixel_array(dataset, raw=True, decoding_plugin=_plugin(uid))
    except Exception as error:
        # Codecs raise what they like; each of it means that this file's pixels can't be had.
        why = " ".join(str(error).split())[:160]
        raise InputError(f"pixels can't be decoded ({syntax}): {why}", code="unreadable", path=path) from error
