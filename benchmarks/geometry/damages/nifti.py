"""NIfTI and Analyze files, written byte by byte from a header of our own and the sample's voxels."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from benchmarks.geometry.series import rotation
from benchmarks.geometry.truth import Array, Image, Truth, refuse, right, row

SAMPLE = Path(__file__).resolve().parents[3] / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_017.nii.gz"
NAME = "scan.nii.gz"
#: RAS+, oblique and anisotropic, so that no confusion of axes goes unseen.
AFFINE = np.eye(4)
AFFINE[:3, :3] = rotation(10, -20, 15) * [0.8, 1.1, 2.5]
AFFINE[:3, 3] = [-30, 12.5, 41]


@cache
def voxels() -> Array:
    """Voxels [i, j, k] from the middle of a sample scan, 12 x 14 x 10 integers."""
    whole = np.asarray(nibabel.load(SAMPLE).dataobj)
    return np.asarray(np.round(whole[12:24, 15:29, 10:20])).astype(np.int16)


def _header(values: Array, kind: Any = nibabel.Nifti1Header, affine: Array = AFFINE) -> Any:
    header = kind()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"] = 352 if kind is nibabel.Nifti1Header else 544
    header["magic"] = b"n+1" if kind is nibabel.Nifti1Header else b"n+2\0\r\n\x1a\n"
    return header


def _bytes(header: Any, values: Array) -> bytes:
    """A single-file NIfTI: header, no extensions, voxels in the header's byte order."""
    order = values.dtype.newbyteorder(header.endianness)
    return bytes(header.binaryblock) + bytes(4) + np.asarray(values, order).tobytes(order="F")


def _write(folder: Path, content: bytes, name: str = NAME) -> str:
    data = gzip.compress(content, 1, mtime=0) if name.endswith(".gz") else content
    (folder / name).write_bytes(data)
    return name


def scan(values: Array | None = None, affine: Array = AFFINE) -> Image:
    """The true volume: the sample's voxels on `AFFINE`, unless others are given."""
    # An affine is stored in float32, and a qform's rotation as three numbers of a quaternion.
    return Image(values=voxels() if values is None else values, affine=affine, tolerance_mm=2e-3)


def _plain(
    folder: Path, values: Array | None = None, edit: Callable[[Any], None] | None = None, name: str = NAME
) -> str:
    """Write a file whose header `edit` changes."""
    values = voxels() if values is None else values
    header = _header(values)
    if edit is not None:
        edit(header)
    return _write(folder, _bytes(header, values), name)


@row("nifti")
def nifti_intact(folder: Path) -> Truth:
    """A gzipped NIfTI-1, oblique and anisotropic."""
    return right(scan(), file=_plain(folder))


@row("nifti")
def nifti_uncompressed(folder: Path) -> Truth:
    """The same, not gzipped."""
    return right(scan(), file=_plain(folder, name="scan.nii"))


@row("nifti")
def nifti_2(folder: Path) -> Truth:
    """NIfTI-2."""
    values = voxels()
    return right(scan(), file=_write(folder, _bytes(_header(values, nibabel.Nifti2Header), values)))


@row("nifti")
def nifti_byte_swapped(folder: Path) -> Truth:
    """Big endian."""
    values = voxels()
    return right(scan(), file=_write(folder, _bytes(_header(values).as_byteswapped(">"), values)))


@row("nifti")
def nifti_with_extension(folder: Path) -> Truth:
    """An extension of 32 bytes lies between header and voxels."""
    values = voxels()
    header = _header(values)
    header["vox_offset"] = 352 + 32
    extension = (
        b"\1\0\0\0" + (32).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"about this scan".ljust(24, b"\0")
    )
    content = bytes(header.binaryblock) + extension + values.tobytes(order="F")
    return right(scan(), file=_write(folder, content))


@row("nifti")
def nifti_gzip_named_nii(folder: Path) -> Truth:
    """A gzipped file is named .nii."""
    name = _plain(folder)
    (folder / name).rename(folder / "scan.nii")
    return right(scan(), file="scan.nii")


@row("nifti")
def nifti_gzip_in_members(folder: Path) -> Truth:
    """The gzip has three members one after the other, as parallel compressors write them."""
    values = voxels()
    content = _bytes(_header(values), values)
    parts = content[:1000], content[1000:2000], content[2000:]
    (folder / NAME).write_bytes(b"".join(gzip.compress(part, 1, mtime=0) for part in parts))
    return right(scan(), file=NAME)


@row("nifti")
def nifti_plain_named_gz(folder: Path) -> Truth:
    """A file that isn't gzipped is named .nii.gz."""
    name = _plain(folder, name="scan.nii")
    (folder / name).rename(folder / NAME)
    return right(scan(), file=NAME)


@row("nifti")
def nifti_pair(folder: Path) -> Truth:
    """A NIfTI-1 pair: scan.hdr with the header and scan.img with the voxels."""
    values = voxels()
    header = _header(values)
    header["vox_offset"], header["magic"] = 0, b"ni1"
    (folder / "scan.hdr").write_bytes(bytes(header.binaryblock) + bytes(4))
    (folder / "scan.img").write_bytes(values.tobytes(order="F"))
    return right(scan(), file="scan.hdr")


@row("nifti")
def analyze(folder: Path) -> Truth:
    """An Analyze 7.5 pair, which has no orientation."""
    values = voxels()
    header = nibabel.AnalyzeHeader()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_zooms((0.8, 1.1, 2.5))
    (folder / "scan.hdr").write_bytes(bytes(header.binaryblock))
    (folder / "scan.img").write_bytes(values.tobytes(order="F"))
    return refuse("unsupported", "missing-geometry", "bad-affine", file="scan.hdr")


@row("nifti")
def nifti_truncated(folder: Path) -> Truth:
    """The voxels are cut short."""
    name = _plain(folder, name="scan.nii")
    (folder / name).write_bytes((folder / name).read_bytes()[:-500])
    return refuse("unreadable", file=name)


@row("nifti")
def nifti_gzip_truncated(folder: Path) -> Truth:
    """The gzip is cut short."""
    name = _plain(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-700])
    return refuse("unreadable", file=name)


@row("nifti")
def nifti_gzip_checksum(folder: Path) -> Truth:
    """The gzip's checksum doesn't match: a voxel was changed on the way."""
    values = voxels()
    content = bytearray(_bytes(_header(values), values))
    checksum = zlib.crc32(bytes(content))
    content[900] ^= 64
    packed = bytearray(gzip.compress(bytes(content), 1, mtime=0))
    packed[-8:-4] = checksum.to_bytes(4, "little")
    (folder / NAME).write_bytes(bytes(packed))
    return refuse("unreadable", file=NAME)


@row("nifti")
def nifti_huge_claim(folder: Path) -> Truth:
    """The header claims 32767 x 32767 x 32767 voxels."""

    def edit(header: Any) -> None:
        header["dim"][1:4] = 32767

    return refuse("unreadable", file=_plain(folder, edit=edit, name="scan.nii"))


@row("nifti")
def nifti_forms_differ(folder: Path) -> Truth:
    """Sform and qform, both with a code, contradict each other: by convention the sform holds, with a note."""
    other = np.diag([-0.8, -1.1, 2.5, 1.0])
    return right(scan(), note="differ", file=_plain(folder, edit=lambda header: header.set_qform(other, 1)))


@row("nifti")
def nifti_lying_pixdim(folder: Path) -> Truth:
    """The sform is set, and pixdim says other voxel sizes."""

    def edit(header: Any) -> None:
        header["pixdim"][1:4] = 3, 3, 3
        header["qform_code"] = 0

    return right(scan(), file=_plain(folder, edit=edit))


@row("nifti")
def nifti_qform_only(folder: Path) -> Truth:
    """Only the qform is set, with a reflection (qfac -1)."""
    affine = AFFINE @ np.diag([-1.0, 1, 1, 1])

    def edit(header: Any) -> None:
        header.set_qform(affine, 1)
        header.set_sform(None, 0)

    return right(scan(affine=affine), file=_plain(folder, edit=edit))


@row("nifti")
def nifti_sform_only(folder: Path) -> Truth:
    """Only the sform is set."""
    return right(scan(), file=_plain(folder, edit=lambda header: header.set_qform(None, 0)))


@row("nifti")
def nifti_neither_form(folder: Path) -> Truth:
    """Neither sform nor qform is set: where the axes point isn't known and must be said; any convention will do."""

    def edit(header: Any) -> None:
        header.set_qform(None, 0)
        header.set_sform(None, 0)
        header["quatern_b"] = header["quatern_c"] = header["quatern_d"] = 0

    name = _plain(folder, edit=edit)
    answers = []
    for signs in ((-1, 1), (1, 1), (-1, -1)):
        scale = np.diag([signs[0] * 0.8, signs[1] * 1.1, 2.5, 1])
        centred = scale.copy()
        centred[:3, 3] = -scale[:3, :3] @ ((np.array(voxels().shape) - 1) / 2)
        answers += [[scan(affine=scale)], [scan(affine=centred)]]
    return right(*answers[0], also=answers[1:], note="orientation", file=name)


@row("nifti")
def nifti_sheared(folder: Path) -> Truth:
    """The sform is sheared by 10 degrees."""
    affine = AFFINE.copy()
    affine[:3, 2] += np.tan(np.radians(10)) * 2.5 * AFFINE[:3, 1] / 1.1

    def edit(header: Any) -> None:
        header.set_sform(affine, 1)
        header.set_qform(None, 0)

    return right(scan(affine=affine), file=_plain(folder, edit=edit))


@row("nifti")
def nifti_left_handed(folder: Path) -> Truth:
    """Stored with the first axis to the left and the last to the feet."""
    affine = AFFINE @ np.diag([-1.0, 1, -1, 1])

    def edit(header: Any) -> None:
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)

    return right(scan(affine=affine), file=_plain(folder, edit=edit))


def _bad_sform(folder: Path, affine: Array) -> Truth:
    def edit(header: Any) -> None:
        header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        header["qform_code"] = 0

    return refuse("bad-affine", file=_plain(folder, edit=edit))


@row("nifti")
def nifti_zero_affine(folder: Path) -> Truth:
    """The sform is all zeros under a code that says it is set."""
    return _bad_sform(folder, np.zeros((4, 4)))


@row("nifti")
def nifti_flat_affine(folder: Path) -> Truth:
    """Two axes of the sform run in the same direction."""
    affine = AFFINE.copy()
    affine[:3, 1] = affine[:3, 0]
    return _bad_sform(folder, affine)


@row("nifti")
def nifti_nan_affine(folder: Path) -> Truth:
    """The sform holds NaN."""
    affine = AFFINE.copy()
    affine[1, 3] = np.nan
    return _bad_sform(folder, affine)


@row("nifti")
def nifti_bad_quaternion(folder: Path) -> Truth:
    """Only the qform is set, and its quaternion is no rotation."""

    def edit(header: Any) -> None:
        header.set_sform(None, 0)
        header["quatern_b"] = header["quatern_c"] = 0.9

    return refuse("bad-affine", file=_plain(folder, edit=edit))


@row("nifti")
def nifti_zero_spacing(folder: Path) -> Truth:
    """Only the qform is set, and the voxel size along k is 0."""

    def edit(header: Any) -> None:
        header.set_sform(None, 0)
        header["pixdim"][3] = 0

    return refuse("bad-affine", file=_plain(folder, edit=edit))


@row("nifti")
def nifti_in_metres(folder: Path) -> Truth:
    """The header says that its numbers are metres."""
    affine = AFFINE.copy()
    affine[:3] /= 1000

    def edit(header: Any) -> None:
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)
        header.set_xyzt_units("meter", "sec")

    return refuse("bad-affine", also=[[scan()]], file=_plain(folder, edit=edit))


@row("nifti")
def nifti_nan_voxels(folder: Path) -> Truth:
    """Some voxels are NaN; handing them on as NaN is faithful."""
    values = voxels().astype(np.float32)
    values[3:5, 2, 7] = np.nan
    return refuse("not-finite", also=[[scan(values)]], file=_plain(folder, values))


@row("nifti")
def nifti_rgb(folder: Path) -> Truth:
    """Voxels are colours (RGB24); three volumes, one a colour, are faithful."""
    values = np.zeros(voxels().shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    values["R"], values["G"] = voxels() % 256, voxels() % 200
    content = bytes(_header(values).binaryblock) + bytes(4) + values.tobytes("F")
    return refuse("not-scalar", also=[[scan(values[colour]) for colour in "RGB"]], file=_write(folder, content))


@row("nifti")
def nifti_complex(folder: Path) -> Truth:
    """Voxels are complex numbers."""
    values = (voxels() * (1 + 0.5j)).astype(np.complex64)
    return refuse("not-scalar", file=_plain(folder, values))


@row("nifti")
def nifti_4d(folder: Path) -> Truth:
    """Three volumes along the fourth axis."""
    stack = np.stack([voxels(), voxels() + 200, voxels() * 2], axis=-1)
    return right(*(scan(stack[..., index]) for index in range(3)), file=_plain(folder, stack))


@row("nifti")
def nifti_4d_of_one(folder: Path) -> Truth:
    """A fourth axis of length 1."""
    return right(scan(), file=_plain(folder, voxels()[..., None]))


@row("nifti")
def nifti_5d_vectors(folder: Path) -> Truth:
    """Two numbers a voxel along the fifth axis, as displacement fields are stored."""
    stack = np.stack([voxels(), voxels() + 200], axis=-1)[:, :, :, None, :]
    return right(*(scan(stack[..., 0, index]) for index in range(2)), file=_plain(folder, stack))


@row("nifti")
def nifti_2d(folder: Path) -> Truth:
    """A 2D image; given as one slice in its place it is faithful."""
    values = voxels()[:, :, 4]
    return refuse("not-3d", also=[[scan(values[..., None])]], file=_plain(folder, values))


@row("nifti")
def nifti_single_slice(folder: Path) -> Truth:
    """A third axis of length 1; given as one slice in its place it is faithful."""
    values = voxels()[:, :, 4:5]
    return refuse("not-3d", also=[[scan(values)]], file=_plain(folder, values))


@row("nifti")
def nifti_scaled(folder: Path) -> Truth:
    """The voxels are scaled by 0.125 and shifted by -1000."""

    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 0.125, -1000

    return right(scan(voxels() * 0.125 - 1000), file=_plain(folder, edit=edit))


@row("nifti")
def nifti_slope_of_nan(folder: Path) -> Truth:
    """Scale and shift are NaN: none was set."""

    def edit(header: Any) -> None:
        header["scl_slope"] = header["scl_inter"] = np.nan

    return right(scan(), file=_plain(folder, edit=edit))


@row("nifti")
def nifti_slope_of_zero(folder: Path) -> Truth:
    """A scale of 0, which by the standard means none, beside a shift that then doesn't count."""

    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 0, -1000

    return right(scan(), file=_plain(folder, edit=edit))


@row("nifti")
def nifti_doubles(folder: Path) -> Truth:
    """Voxels of 64-bit floating point."""
    values = voxels() / 7.0
    return right(scan(values), file=_plain(folder, values))


@row("nifti")
def nifti_unsigned_32(folder: Path) -> Truth:
    """Unsigned 32-bit voxels above 2^31."""
    values = voxels().astype(np.uint32) * 1000 + 2**31
    return right(scan(values), file=_plain(folder, values))


@row("nifti")
def nifti_in_a_deep_folder(folder: Path) -> Truth:
    """The file lies two folders down, in a folder with a non-ASCII name."""
    deep = folder / "sub-01 ä" / "anat"
    deep.mkdir(parents=True)
    return right(scan(), file=f"sub-01 ä/anat/{_plain(deep)}")
