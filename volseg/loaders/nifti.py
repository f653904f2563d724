"""NIfTI files, with nibabel: header to geometry, then the voxels in one pass that also hashes the file.

nibabel reads the header; the bytes are read here, because nibabel stops before a gzip's checksum and so never notices
a damaged one.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import Floats, Geometry
from volseg.loaders.candidate import Candidate, refusal, safe_name
from volseg.volume import NiftiSource, Source, Volume, Voxels

#: sform and qform that put no voxel further apart than this are the same; a qform is stored as float32 quaternion.
FORMS_AGREE_MM = 0.1

_CHUNK = 1 << 20
_SUFFIXES = (".nii.gz", ".nii")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Layout:
    """What a header says: where the voxels are in space and in the file."""

    header: Any
    geometry: Geometry
    channels: int
    notes: tuple[str, ...]


def is_nifti_name(path: Path) -> bool:
    """Whether the file claims to be NIfTI."""
    return path.name.lower().endswith(_SUFFIXES)


def stem(path: Path) -> str:
    """File name without ``.nii`` or ``.nii.gz``."""
    suffix = next(suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]


def describe(path: Path) -> Candidate:
    """Candidate from one file, by its header; damage is noticed by the file's size."""
    try:
        layout = _layout(path)
    except RefusalError as error:
        return _candidate(stem(path), (path,), None, refused=error)
    return _candidate(stem(path), (path,), layout)


def describe_channels(name: str, files: Mapping[int, Path], channels: int) -> Candidate:
    """Candidate from the files of one case with several channels.

    Parameters
    ----------
    files
        By channel: ``x_0000`` is 0.
    channels
        How many there should be.
    """
    paths = tuple(files[index] for index in sorted(files))
    try:
        if sorted(files) != list(range(channels)):
            found = ", ".join(f"{index:04d}" for index in sorted(files))
            raise InputError(
                f"case {name} has the channels {found}; needed are 0000 to {channels - 1:04d}", code="channels"
            )
        layouts = []
        for path in paths:
            try:
                layouts.append(_layout(path))
            except RefusalError as error:
                raise refusal(f"{path.name}: {error.reason}", code=error.code) from error
        _check_channels(paths, layouts)
    except RefusalError as error:
        return _candidate(name, paths, None, refused=error)
    return _candidate(name, paths, layouts[0])


def read(candidate: Candidate) -> Volume:
    """Voxels of a NIfTI candidate, each file read once.

    Returns
    -------
    Volume
        [i, j, k] or [c, i, j, k]; integers stay what they are unless the header scales them, all else is float32.

    Raises
    ------
    InputError
        Codes ``unreadable`` and ``not-finite``.
    """
    layouts, arrays, digests = [], [], []
    for path in candidate.files:
        try:
            layout = _layout(path)
            array, digest = _voxels(path, layout)
        except RefusalError as error:
            raise refusal(error.reason, code=error.code, path=path) from error
        layouts.append(layout)
        arrays.append(array)
        digests.append(digest)
    source = Source(
        kind="nifti",
        name=candidate.name,
        path=candidate.path,
        description=candidate.description,
        sha256=digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        notes=candidate.notes,
        nifti=_source(layouts[0].header, layouts[0].geometry),
    )
    return Volume(arrays[0] if len(arrays) == 1 else np.stack(arrays), layouts[0].geometry, source)


def _candidate(
    name: str, files: tuple[Path, ...], layout: _Layout | None, refused: RefusalError | None = None
) -> Candidate:
    return Candidate(
        name=safe_name(name),
        kind="nifti",
        modality=None,
        description=files[0].name,
        path=files[0],
        files=files,
        series_uid=None,
        series_number=None,
        geometry=layout.geometry if layout else None,
        channels=max(len(files), layout.channels if layout else 1),
        usable=refused is None,
        reason=refused.reason if refused else None,
        code=refused.code if refused else None,
        notes=layout.notes if layout else (),
    )


def _check_channels(paths: tuple[Path, ...], layouts: list[_Layout]) -> None:
    for path, layout in zip(paths, layouts, strict=True):
        if layout.channels != 1:
            raise InputError(f"{path.name} holds {layout.channels} channels itself; give one a file", code="channels")
        if difference := layouts[0].geometry.difference(layout.geometry):
            raise GeometryError(
                f"{path.name} doesn't lie on the grid of {paths[0].name}: {difference}; resample it first",
                code="grid-mismatch",
            )


@contextmanager
def _read_errors() -> Iterator[None]:
    """Turn what reading a file may raise into ``unreadable``."""
    try:
        yield
    except EOFError as error:
        raise InputError("the file is cut short; copy it again", code="unreadable") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"the gzip is damaged ({error}); copy the file again", code="unreadable") from error
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", code="unreadable") from error


class _Hashing:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _content(file: _Hashing, zipped: bool) -> _Readable:
    return gzip.GzipFile(fileobj=cast(BinaryIO, file), mode="rb") if zipped else file


def _is_zipped(path: Path) -> bool:
    """Whether the first bytes are gzip's: a name may be wrong."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _layout(path: Path) -> _Layout:
    """Read the header, and check that the file is long enough for the voxels it promises."""
    with _read_errors(), path.open("rb") as file:
        zipped = _is_zipped(path)
        header = _header(_content(_Hashing(file), zipped).read(540))
        shape, channels = _shape(header)
        needed = int(header.get_data_offset()) + math.prod(shape) * channels * _dtype(header).itemsize
        held = _content_length(path, zipped, needed)
    if held < needed:
        raise InputError(f"the file is cut short: {held} of {needed} bytes are there; copy it again", code="unreadable")
    geometry, notes = _geometry(header, shape)
    return _Layout(header, geometry, channels, tuple(notes))


def _header(raw: bytes) -> Any:
    """Nibabel's header of NIfTI-1 or NIfTI-2, of either byte order."""
    sizes = {int.from_bytes(raw[:4], order) for order in ("little", "big")}
    kind = nib.Nifti1Header if 348 in sizes else nib.Nifti2Header if 540 in sizes else None
    if kind is None or len(raw) < kind.template_dtype.itemsize:
        raise InputError("no NIfTI header: not a NIfTI file, or a damaged one", code="unreadable")
    try:
        header = kind(raw[: kind.template_dtype.itemsize], check=False)
        magic = bytes(header["magic"])
        header.get_data_dtype(), header.get_data_shape(), header.get_slope_inter()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise InputError(f"the NIfTI header is damaged ({error})", code="unreadable") from error
    if magic[:3] == b"ni1":
        raise InputError("a NIfTI header whose voxels are in another file; convert to .nii.gz", code="unsupported")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise InputError("no NIfTI header: an Analyze file, or a damaged one", code="unreadable")
    return header


def _dtype(header: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "complex" if dtype.kind == "c" else "colour"
        raise InputError(f"{what} voxels; a scan has one number a voxel", code="not-scalar")
    return dtype


def _shape(header: Any) -> tuple[tuple[int, int, int], int]:
    """Size along i, j, k and the number of channels: the one axis behind the third that is longer than 1."""
    stored = tuple(int(size) for size in header.get_data_shape())
    if any(size < 1 for size in stored):
        raise InputError(f"the NIfTI header is damaged: size {stored}", code="unreadable")
    more = [size for size in stored[3:] if size > 1]
    if len(stored) < 3 or min(stored[:3]) < 2 or len(more) > 1:
        raise GeometryError(
            f"an image of size {'x'.join(map(str, stored))}; needed is a volume of at least two voxels each way,"
            " with at most one further axis for channels",
            code="not-3d",
        )
    return (stored[0], stored[1], stored[2]), more[0] if more else 1


def _content_length(path: Path, zipped: bool, needed: int) -> int:
    """Bytes of content. A gzip's last four bytes say it, to be believed where they say what is needed."""
    size = path.stat().st_size
    if not zipped:
        return size
    with path.open("rb") as file:
        file.seek(max(0, size - 4))
        if int.from_bytes(file.read(4), "little") == needed % 2**32:
            return needed
        file.seek(0)
        with gzip.GzipFile(fileobj=file, mode="rb") as content:
            return sum(len(chunk) for chunk in iter(lambda: content.read(_CHUNK), b""))


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


def _voxels(path: Path, layout: _Layout) -> tuple[Voxels, str]:
    """Read all of a file once: the voxels, and the SHA-256 of its bytes."""
    header, channels = layout.header, layout.channels
    dtype = _dtype(header)
    buffer = np.empty(math.prod(layout.geometry.shape) * channels * dtype.itemsize, np.uint8)
    with _read_errors(), path.open("rb") as file:
        hashing = _Hashing(file)
        content = _content(hashing, _is_zipped(path))
        _exactly(content, np.empty(int(header.get_data_offset()), np.uint8))
        _exactly(content, buffer)
        # To the end: that is where a gzip keeps its checksum, and the hash is of the whole file.
        while content.read(_CHUNK):
            pass
    array: Voxels = buffer.view(dtype).reshape((*layout.geometry.shape, channels), order="F")
    array = array[..., 0] if channels == 1 else np.moveaxis(array, -1, 0)
    return _scaled(array, header), hashing.sha256.hexdigest()


def _exactly(content: _Readable, buffer: npt.NDArray[np.uint8]) -> None:
    """Fill `buffer` from `content`."""
    filled = 0
    while filled < buffer.size:
        chunk = content.read(min(_CHUNK, buffer.size - filled))
        if not chunk:
            raise EOFError
        buffer[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)


def _scaled(array: Voxels, header: Any) -> Voxels:
    """Apply scl_slope and scl_inter; native byte order, integers as they are where there is nothing to apply."""
    slope, inter = header.get_slope_inter()
    scaling = slope is not None and (slope, inter) != (1, 0)
    if not scaling and array.dtype.kind in "iu":
        return array.astype(np.dtype(array.dtype.type), copy=False)
    values: npt.NDArray[np.float32]
    with np.errstate(over="ignore"):  # what doesn't fit becomes infinite, and is refused below
        if not scaling:
            values = array.astype(np.float32, copy=False)
        elif array.dtype.itemsize <= 2:
            values = array.astype(np.float32) * np.float32(slope) + np.float32(inter)
        else:  # float32 has room for 24 bits: scaled as doubles
            values = (array.astype(np.float64) * slope + inter).astype(np.float32)
    if bad := int(values.size - np.isfinite(values).sum()):
        raise InputError(
            f"{bad} of {values.size} voxels are NaN, infinite or too large; replace them by a number such as 0"
            " (numpy.nan_to_num)",
            code="not-finite",
        )
    return values
