"""What a NIfTI header says, with nibabel: geometry from sform and qform, and where the voxels are.

nibabel reads the header alone: it stops before a gzip's checksum, and so never notices damaged voxels.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from volseg.errors import GeometryError, InputError
from volseg.geometry import Floats, Geometry
from volseg.loaders import archive
from volseg.loaders.formats.voxel_file import Layout, volume_axes
from volseg.loaders.packing import packing_of, read_errors, unpacked
from volseg.volume import NiftiSource

#: sform and qform that put no voxel further apart than this are the same; a qform is stored as float32 quaternion.
FORMS_AGREE_MM = 0.1
#: Codes of a form that the standard defines, and the one that says no more than that the voxels lie somewhere:
#: NIFTI_XFORM_ALIGNED_ANAT.
_CODES, _ALIGNED = range(6), 2


def layout(path: Path) -> Layout:
    """What the header of a NIfTI file says; of either version, byte order, compressed or not whatever the name says.

    Raises
    ------
    InputError
        Codes ``unreadable``, ``unsupported`` and ``not-scalar``.
    GeometryError
        Codes ``missing-geometry`` (Analyze), ``not-3d`` and ``bad-affine``.
    """
    with archive.open_binary(path) as file:
        header = _header(unpacked(file, packing_of(path)).read(540))
    odd = _by_the_standard(header)
    in_pair = bytes(header["magic"])[:2] == b"ni"
    data = _voxels_beside(path) if in_pair else path
    shape, channels = volume_axes([int(size) for size in header.get_data_shape()])
    dtype = _dtype(header)
    with np.errstate(all="ignore"):  # what comes of damaged numbers is refused
        geometry, notes = _geometry(header, shape)
        source = _source(header, geometry)
    slope, intercept = header.get_slope_inter()
    return Layout(
        geometry=geometry,
        dtype=dtype,
        data=data,
        start=0,
        packing=packing_of(data),
        before=_offset(header, in_pair=in_pair),
        channels=channels,
        slope=1 if slope is None else slope,
        intercept=0 if intercept is None else intercept,
        notes=(*odd, *notes),
        nifti=source,
    )


def starts_like_nifti(path: Path) -> bool:
    """Whether the first bytes are those of a NIfTI or an Analyze header: the header's size, in either byte order."""
    try:
        with read_errors(), archive.open_binary(path) as file:
            raw = unpacked(file, packing_of(path)).read(540)
    except InputError:
        return False
    return _kind(raw) is not None


def _kind(raw: bytes) -> Any:
    """Nibabel's class for a header, or None where it is none."""
    sizes = {int.from_bytes(raw[:4], order) for order in ("little", "big")}
    kind = nib.Nifti1Header if 348 in sizes else nib.Nifti2Header if 540 in sizes else None
    return None if kind is None or len(raw) < kind.template_dtype.itemsize else kind


def _header(raw: bytes) -> Any:
    """Nibabel's header of NIfTI-1 or NIfTI-2, of either byte order."""
    kind = _kind(raw)
    if kind is None:
        twice = raw[:2] == b"\x1f\x8b"
        what = "compressed twice; unzip it once" if twice else "not a NIfTI file, or a damaged one"
        raise InputError(f"no NIfTI header: {what}", code="unreadable")
    try:
        header = kind(raw[: kind.template_dtype.itemsize], check=False)
        magic = bytes(header["magic"])[:3]
        header.get_data_dtype(), header.get_data_shape(), header.get_slope_inter()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise InputError(f"the NIfTI header is damaged ({error})", code="unreadable") from error
    if magic not in (b"n+1", b"n+2", b"ni1", b"ni2"):
        if kind is nib.Nifti1Header:
            raise GeometryError(
                "an Analyze header (or a NIfTI one that is damaged): Analyze doesn't state the orientation, and left"
                " and right may be swapped; convert the original scan to NIfTI",
                code="missing-geometry",
            )
        raise InputError("the NIfTI header is damaged: its magic is missing", code="unreadable")
    return header


def _by_the_standard(header: Any) -> list[str]:
    """Put what the standard explains, and nibabel doesn't take, into the values that are meant; with notes.

    nifti1.h: a form counts where its code is above 0, whatever it is, and a qfac of 0 is 1.
    """
    notes = []
    for name in ("sform_code", "qform_code"):
        code = int(header[name])
        if code not in _CODES:
            header[name] = _ALIGNED if code > 0 else 0
            taken = f"taken as {_ALIGNED}, aligned" if code > 0 else "taken as 0, not set"
            notes.append(f"{name} is {code}, which NIfTI doesn't define: {taken}")
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1
    return notes


def _voxels_beside(path: Path) -> Path:
    """The ``.img`` file of a pair, compressed or not."""
    stem = re.sub(r"\.hdr(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    for ending in (".img", ".img.gz", ".IMG", ".IMG.GZ"):
        if stem != path.name and archive.exists(beside := path.with_name(stem + ending)):
            return beside
    raise InputError(
        f"a NIfTI header whose voxels are in another file ({stem}.img), which isn't there; copy it beside the header",
        code="unreadable",
    )


def _offset(header: Any, *, in_pair: bool) -> int:
    """Bytes before the voxels: the header itself, at least, where it is in the same file."""
    try:
        offset = int(header.get_data_offset())
    except (ValueError, OverflowError) as error:
        raise InputError(f"the NIfTI header is damaged: where its voxels are ({error})", code="unreadable") from error
    if offset < (0 if in_pair else header.template_dtype.itemsize):
        raise InputError(f"the NIfTI header is damaged: its voxels at byte {offset} of itself", code="unreadable")
    return offset


def _dtype(header: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "complex" if dtype.kind == "c" else "colour"
        raise InputError(f"{what} voxels; a scan has one number a voxel", code="not-scalar")
    return dtype


def _geometry(header: Any, shape: tuple[int, int, int]) -> tuple[Geometry, list[str]]:
    """Grid from the sform where its code is set, else the qform, else from the voxel size alone; with notes."""
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    unit = _units(header)[0]
    if unit not in ("mm", "unknown"):
        raise GeometryError(f"the affine is in {unit}, not in millimetres; write it in mm", code="bad-affine")
    try:
        sform: Floats | None = header.get_sform(coded=True)[0]
        qform: Floats | None = header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        if sform_code <= 0:
            raise GeometryError(f"the qform is damaged ({error})", code="bad-affine") from error
        sform, qform = header.get_sform(), None
    name = "sform" if sform is not None else "qform" if qform is not None else "voxel size"
    affine = sform if sform is not None else qform if qform is not None else header.get_base_affine()
    try:
        geometry = Geometry(shape, affine)
    except GeometryError as error:
        raise GeometryError(f"{name}: {error.reason}; set it from the original scan", code="bad-affine") from error
    notes = []
    if name == "voxel size":
        notes.append(
            f"neither sform nor qform is set: the orientation isn't stated and is taken as {geometry.orientation}, as"
            " nibabel does; left and right may be swapped"
        )
    elif sform is not None and qform is not None and (difference := _difference(geometry, qform)):
        notes.append(f"sform (code {sform_code}) and qform (code {qform_code}) differ, {difference}; the sform is used")
    if geometry.sheared:
        notes.append("the axes are not perpendicular (the affine is sheared)")
    return geometry, notes


def _difference(geometry: Geometry, qform: Floats) -> str | None:
    try:
        return geometry.difference(Geometry(geometry.shape, qform), FORMS_AGREE_MM)
    except GeometryError as error:
        return f"the qform being unusable ({error.reason})"


def _units(header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError:
        return "unknown", "unknown"
    return str(space), str(time)


def _source(header: Any, geometry: Geometry) -> NiftiSource:
    qform_code = int(header["qform_code"])
    qform = None
    if qform_code > 0 and int(header["sform_code"]) > 0:
        # Kept only where it isn't the volume's affine; a damaged one is not worth writing back.
        with suppress(HeaderDataError, ValueError, np.linalg.LinAlgError):
            rows: Floats = header.get_qform()
            if np.isfinite(rows).all() and not np.allclose(rows, geometry.affine, rtol=0, atol=1e-4):
                qform = tuple(tuple(float(value) for value in row) for row in rows)
    return NiftiSource(sform_code=int(header["sform_code"]), qform_code=qform_code, units=_units(header), qform=qform)
