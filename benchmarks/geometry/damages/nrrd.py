"""NRRD and MetaImage files, whose text headers are written here."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from benchmarks.geometry.damages.nifti import AFFINE, scan, voxels
from benchmarks.geometry.truth import Array, Truth, ras, refuse, right, row

#: The same grid as the NIfTI rows', in LPS+ as both formats mean it.
LPS = ras(AFFINE)


def _vector(numbers: Array) -> str:
    return "(" + ",".join(f"{number:.10g}" for number in numbers) + ")"


def _nrrd(
    folder: Path, values: Array | None = None, *, drop: tuple[str, ...] = (), name: str = "scan.nrrd", **fields: str
) -> str:
    """Write a NRRD file with the fields given in the place of the right ones, or without some."""
    values = voxels() if values is None else values
    said = {
        "type": "int16",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, values.shape)),
        "space directions": " ".join(_vector(LPS[:3, axis]) for axis in range(3)),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": _vector(LPS[:3, 3]),
    }
    said.update({key.replace("_", " "): value for key, value in fields.items()})
    text = "NRRD0005\n" + "".join(f"{key}: {value}\n" for key, value in said.items() if key not in drop)
    data = values.astype(">i2" if said["endian"] == "big" else "<i2").tobytes(order="F")
    if said["encoding"] == "gzip":
        data = gzip.compress(data, mtime=0)
    if "data file" in said:
        (folder / said["data file"]).write_bytes(data)
        data = b""
    (folder / name).write_bytes(text.encode() + b"\n" + data)
    return name


@row("itk")
def nrrd_intact(folder: Path) -> Truth:
    """A NRRD file in LPS."""
    return right(scan(), file=_nrrd(folder))


@row("itk")
def nrrd_gzip(folder: Path) -> Truth:
    """A NRRD file with gzipped voxels."""
    return right(scan(), file=_nrrd(folder, encoding="gzip"))


@row("itk")
def nrrd_big_endian(folder: Path) -> Truth:
    """A NRRD file, big endian."""
    return right(scan(), file=_nrrd(folder, endian="big"))


@row("itk")
def nrrd_in_ras(folder: Path) -> Truth:
    """A NRRD file whose space is right-anterior-superior."""
    directions = " ".join(_vector(AFFINE[:3, axis]) for axis in range(3))
    name = _nrrd(folder, space="RAS", space_directions=directions, space_origin=_vector(AFFINE[:3, 3]))
    return right(scan(), file=name)


@row("itk")
def nrrd_detached(folder: Path) -> Truth:
    """A NRRD header whose voxels lie in another file."""
    return right(scan(), file=_nrrd(folder, name="scan.nhdr", data_file="scan.raw"))


@row("itk")
def nrrd_two_volumes(folder: Path) -> Truth:
    """A NRRD file of two volumes along a first axis of the kind list."""
    both = np.stack([voxels(), voxels() + 200])
    directions = " ".join(["none", *(_vector(LPS[:3, axis]) for axis in range(3))])
    sizes = " ".join(map(str, both.shape))
    name = _nrrd(
        folder, both, dimension="4", sizes=sizes, space_directions=directions, kinds="list domain domain domain"
    )
    return right(scan(), scan(voxels() + 200), file=name)


@row("itk")
def nrrd_without_space(folder: Path) -> Truth:
    """A NRRD file that doesn't say what its directions mean."""
    name = _nrrd(
        folder, drop=("space", "space directions", "space origin"), space_dimension="3", spacings="0.8 1.1 2.5"
    )
    return refuse("missing-geometry", "bad-affine", "unsupported", file=name)


@row("itk")
def nrrd_without_directions(folder: Path) -> Truth:
    """A NRRD file in LPS that doesn't say in which directions its axes run."""
    name = _nrrd(folder, drop=("space directions",))
    return refuse("missing-geometry", "bad-affine", "unsupported", file=name)


@row("itk")
def nrrd_truncated(folder: Path) -> Truth:
    """A NRRD file that is cut short."""
    name = _nrrd(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-500])
    return refuse("unreadable", file=name)


def _meta(folder: Path, *, name: str = "scan.mha", **fields: str) -> str:
    """Write a MetaImage file with the fields given in the place of the right ones."""
    values = voxels()
    spacing = np.linalg.norm(LPS[:3, :3], axis=0)
    said = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(f"{number:.10g}" for number in (LPS[:3, :3] / spacing).T.ravel()),
        "Offset": " ".join(f"{number:.10g}" for number in LPS[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": " ".join(f"{number:.10g}" for number in spacing),
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    said.update(fields)
    data = values.astype(">i2" if said["BinaryDataByteOrderMSB"] == "True" else "<i2").tobytes(order="F")
    if said["CompressedData"] == "True":
        data = zlib.compress(data)
        said["CompressedDataSize"] = str(len(data))
        said["ElementDataFile"] = said.pop("ElementDataFile")  # what follows this line is voxels
    text = "".join(f"{key} = {value}\n" for key, value in said.items())
    if said["ElementDataFile"] != "LOCAL":
        (folder / said["ElementDataFile"]).write_bytes(data)
        data = b""
    (folder / name).write_bytes(text.encode() + data)
    return name


@row("itk")
def metaimage_intact(folder: Path) -> Truth:
    """A MetaImage file (.mha)."""
    return right(scan(), file=_meta(folder))


@row("itk")
def metaimage_compressed(folder: Path) -> Truth:
    """A MetaImage file with compressed voxels."""
    return right(scan(), file=_meta(folder, CompressedData="True"))


@row("itk")
def metaimage_big_endian(folder: Path) -> Truth:
    """A MetaImage file, big endian."""
    name = _meta(folder, BinaryDataByteOrderMSB="True")
    return right(scan(), file=name)


@row("itk")
def metaimage_pair(folder: Path) -> Truth:
    """A MetaImage header (.mhd) whose voxels lie in another file."""
    return right(scan(), file=_meta(folder, name="scan.mhd", ElementDataFile="scan.raw"))


@row("itk")
def metaimage_truncated(folder: Path) -> Truth:
    """A MetaImage file that is cut short."""
    name = _meta(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-500])
    return refuse("unreadable", file=name)
