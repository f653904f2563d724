"""Valid inputs of every format that the loaders know, to be damaged: tiny, and the same bytes every time."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.helpers.dicom_files import image, lps_affine, voxels, write_series
from tests.helpers.dicom_objects import enhanced_mr, save, segmentation, structure_set


@dataclass(frozen=True)
class Seed:
    """A folder with one scan that volseg reads.

    Attributes
    ----------
    files
        Content by name.
    target
        Name of the file to damage; the others stay fine.
    """

    files: Mapping[str, bytes]
    target: str


def _folder(make: Callable[[Path], Any], target: str) -> Seed:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        return Seed({path.name: path.read_bytes() for path in sorted(folder.iterdir())}, target)


def _series(**options: Any) -> Seed:
    return _folder(lambda folder: write_series(folder, **options), "IM001.dcm")


def _compressed(syntax: Any) -> Seed:
    # Codecs have blocks and lines of some length; OpenJPEG writes no image below 32 x 32.
    return _series(array=voxels((36, 33, 3), np.uint16), syntax=syntax)


def _deflated() -> Seed:
    def write(folder: Path) -> None:
        for path in write_series(folder):
            dataset = pydicom.dcmread(path)
            save(dataset, path, DeflatedExplicitVRLittleEndian)

    return _folder(write, "IM001.dcm")


def _recoded(syntax: Any) -> Seed:
    def write(folder: Path) -> None:
        array, affine = voxels(), lps_affine()
        for index in range(array.shape[2]):
            dataset = image(array, affine, index)
            if syntax == ExplicitVRBigEndian:
                dataset.PixelData = array[:, :, index].T.astype(">i2").tobytes()
            dataset.file_meta.TransferSyntaxUID = syntax
            path = folder / f"IM{index:03d}.dcm"
            dataset.save_as(path, enforce_file_format=True)

    return _folder(write, "IM001.dcm")


def _multiframe() -> Seed:
    return _folder(lambda folder: save(enhanced_mr(voxels(), lps_affine()), folder / "enhanced.dcm"), "enhanced.dcm")


def _with_object(kind: str) -> Seed:
    def write(folder: Path) -> None:
        paths = write_series(folder)
        images = [pydicom.dcmread(path) for path in paths]
        mask = np.zeros(voxels().shape, np.uint8)
        mask[1:4, 1:3, 1:] = 1
        square = np.array([[-29.0, 13.0], [-27.5, 13.0], [-27.5, 14.5], [-29.0, 14.5]])
        contours = [np.column_stack([square, np.full(4, one.ImagePositionPatient[2])]) for one in images]
        made = segmentation(images, [mask, 1 - mask]) if kind == "SEG" else structure_set(images, contours)
        save(made, folder / "object.dcm")

    return _folder(write, "object.dcm")


def _nifti(kind: Any, name: str) -> Seed:
    scan = kind(voxels((5, 4, 3)), np.diag([0.7, 0.9, 2.5, 1.0]))
    scan.header.set_xyzt_units("mm", "sec")
    content = scan.to_bytes()
    return Seed({name: gzip.compress(content, mtime=0) if name.endswith(".gz") else content}, name)


def _nrrd(encoding: str) -> Seed:
    pixels = voxels().tobytes(order="F")
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 3\n"
        "space directions: (0.7,0,0) (0,0.9,0) (0,0,2.5)\nkinds: domain domain domain\nendian: little\n"
        f"encoding: {encoding}\nspace origin: (-30,12,101.5)\n\n"
    )
    body = gzip.compress(pixels, mtime=0) if encoding == "gzip" else pixels
    return Seed({"scan.nrrd": header.encode() + body}, "scan.nrrd")


def _metaimage(name: str, compressed: bool) -> Seed:
    import zlib

    pixels = voxels().tobytes(order="F")
    body = zlib.compress(pixels) if compressed else pixels
    size = f"CompressedDataSize = {len(body)}\n" if compressed else ""
    local = name.endswith(".mha")
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {compressed}\n{size}TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -30 12 101.5\n"
        "CenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\nElementSpacing = 0.7 0.9 2.5\nDimSize = 5 4 3\n"
        f"ElementType = MET_SHORT\nElementDataFile = {'LOCAL' if local else 'scan.raw'}\n"
    ).encode()
    return Seed({name: header + body} if local else {name: header, "scan.raw": body}, name)


def _analyze() -> Seed:
    scan = nib.AnalyzeImage(voxels(), np.eye(4))
    return Seed({"scan.hdr": scan.header.binaryblock, "scan.img": voxels().tobytes(order="F")}, "scan.hdr")


def _zip() -> Seed:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _series().files.items():
            archive.writestr(zipfile.ZipInfo(f"study/{name}"), content, zipfile.ZIP_DEFLATED)
    return Seed({"study.zip": buffer.getvalue()}, "study.zip")


_MAKERS: dict[str, Callable[[], Seed]] = {
    "dicom": _series,
    "dicom implicit": lambda: _recoded(ImplicitVRLittleEndian),
    "dicom big endian": lambda: _recoded(ExplicitVRBigEndian),
    "dicom deflated": _deflated,
    "dicom RLE": lambda: _compressed(RLELossless),
    "dicom JPEG-LS": lambda: _compressed(JPEGLSLossless),
    "dicom JPEG 2000": lambda: _compressed(JPEG2000Lossless),
    "dicom multi-frame": _multiframe,
    "dicom SEG": lambda: _with_object("SEG"),
    "dicom RTSTRUCT": lambda: _with_object("RTSTRUCT"),
    "zip": _zip,
    "nifti": lambda: _nifti(nib.Nifti1Image, "scan.nii"),
    "nifti gz": lambda: _nifti(nib.Nifti1Image, "scan.nii.gz"),
    "nifti 2": lambda: _nifti(nib.Nifti2Image, "scan.nii"),
    "analyze": _analyze,
    "nrrd": lambda: _nrrd("raw"),
    "nrrd gzip": lambda: _nrrd("gzip"),
    "metaimage": lambda: _metaimage("scan.mha", compressed=False),
    "metaimage zlib": lambda: _metaimage("scan.mha", compressed=True),
    "metaimage header": lambda: _metaimage("scan.mhd", compressed=False),
}
#: Names of the formats.
FORMATS = tuple(_MAKERS)
#: Formats whose codecs run in a process of their own, whose start takes ten times as long as all else.
SLOW = ("dicom JPEG-LS", "dicom JPEG 2000")


@cache
def seed(name: str) -> Seed:
    """The valid input of one of `FORMATS`."""
    return _MAKERS[name]()
