"""`Format`: from a file to a `Candidate` and a `Volume`, for formats of one header and one block of voxels.

NIfTI, NRRD and MetaImage each say in a `Layout` what their headers mean; nothing here knows a format.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import Geometry, Shape
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate, refusal
from volseg.loaders.packing import (
    Hashing,
    Packing,
    check_length,
    drain,
    fill,
    read_errors,
    skip,
    unpacked,
)
from volseg.text import safe_name
from volseg.volume import NiftiSource, Source, Volume, Voxels

Kind = Literal["nifti", "nrrd", "metaimage"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a header says: where the voxels are in space and in the file.

    Attributes
    ----------
    geometry
        Grid of the three axes in space, in the order in which the file stores them, i fastest.
    dtype
        Type of the stored numbers, with their byte order: integers or floats.
    data
        File with the voxels: that of the header, or another.
    start
        Bytes of that file before the (compressed) content.
    packing
        Packing of the content.
    before
        Bytes of content before the voxels.
    channels, channel_axis
        Numbers a voxel, and the place of their axis among the four as stored: 0 is the fastest.
    slope, intercept
        Factor and summand that turn stored numbers into those that are meant.
    modality
        DICOM's term, None where the header doesn't say.
    notes
        Notes on what is unusual, a sentence each.
    nifti
        Further fields of a NIfTI header.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    data: Path
    start: int
    packing: Packing
    before: int = 0
    channels: int = 1
    channel_axis: int = 3
    slope: float = 1
    intercept: float = 0
    modality: str | None = None
    notes: tuple[str, ...] = ()
    nifti: NiftiSource | None = None

    @property
    def nbytes(self) -> int:
        """Of all voxels, as stored."""
        return math.prod(self.geometry.shape) * self.channels * self.dtype.itemsize


Reader = Callable[[Path], Layout]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format.

    Attributes
    ----------
    kind
        Name in `Candidate.kind` and ``inspect``.
    endings
        Endings of its files' names, the longest first.
    shared_endings
        Endings of its files that other programs use too: a file is one of this format by its content alone.
    layout
        Function that reads a header, from the path of the file that holds it.
    """

    kind: Kind
    endings: tuple[str, ...]
    layout: Reader
    shared_endings: tuple[str, ...] = ()

    def claims(self, path: Path) -> bool:
        """Whether the file claims to be of this format by its name."""
        return path.name.lower().endswith(self.endings)

    def stem(self, path: Path) -> str:
        """File name without the format's ending; NRRD's ``x.seg.nrrd`` is ``x.seg``."""
        return path.name[: len(path.name) - len(ending(path, self.endings + self.shared_endings))]

    def describe(self, path: Path) -> Candidate:
        """Candidate from one file, by its header; damage is noticed by the size of the file that holds the voxels."""
        try:
            layout = checked(path, self.layout)
        except RefusalError as error:
            return self._candidate(path, (path,), None, refused=error)
        return self._candidate(path, (layout.data,), layout)

    def _candidate(
        self, path: Path, files: tuple[Path, ...], layout: Layout | None, refused: RefusalError | None = None
    ) -> Candidate:
        return Candidate(
            name=safe_name(self.stem(path)),
            kind=self.kind,
            modality=layout.modality if layout else None,
            description=path.name,
            path=path,
            files=files,
            series_uid=None,
            series_number=None,
            geometry=layout.geometry if layout else None,
            channels=layout.channels if layout else 1,
            usable=refused is None,
            reason=refused.reason if refused else None,
            code=refused.code if refused else None,
            notes=layout.notes if layout else (),
            reader=self.read,
        )

    def read(self, found: Candidate) -> Volume:
        """Voxels of a candidate, each of its files read once.

        Returns
        -------
        Volume
            [i, j, k] or [c, i, j, k]; integers stay what they are unless the header scales them, all else is float32.

        Raises
        ------
        InputError
            Codes ``unreadable`` and ``not-finite``.
        """
        try:
            layout = checked(found.path, self.layout)
            array, digest = _voxels(found.path, layout)
        except RefusalError as error:
            raise refusal(error.reason, code=error.code, path=found.path) from error
        source = Source(
            kind=self.kind,
            name=found.name,
            path=found.path,
            modality=found.modality,
            description=found.description,
            sha256=digest,
            notes=found.notes,
            nifti=layout.nifti,
        )
        return Volume(array, layout.geometry, source)


def ending(path: Path, endings: Sequence[str]) -> str:
    """The one of `endings` that the name ends in, as it is spelt there; empty where it is none of them."""
    found = next((ending for ending in endings if path.name.lower().endswith(ending)), "")
    return path.name[len(path.name) - len(found) :]


def checked(path: Path, reader: Reader) -> Layout:
    """Layout by the header in `path`, whose voxels' file is long enough for what it promises.

    Raises
    ------
    RefusalError
        Without the path in its message.
    """
    with read_errors():
        layout = reader(path)
        check_length(layout.data, layout.start, layout.packing, layout.before + layout.nbytes)
        surplus = archive.size_of(layout.data) - layout.start - layout.before - layout.nbytes
    if layout.data == path or layout.packing != "raw" or not surplus:
        return layout
    note = f"{surplus} bytes follow the voxels in {layout.data.name}: check that the header tells their size and type"
    return replace(layout, notes=(*layout.notes, note))


def volume_axes(sizes: Sequence[int]) -> tuple[Shape, int]:
    """Size along i, j, k and the number of channels: the one axis behind the third that is longer than 1.

    Raises
    ------
    InputError
        Code ``unreadable``: a size that is none.
    GeometryError
        Code ``not-3d``.
    """
    if any(size < 1 for size in sizes):
        raise InputError(f"the header is damaged: size {tuple(sizes)}", code="unreadable")
    more = [size for size in sizes[3:] if size > 1]
    if len(sizes) < 3 or min(sizes[:3]) < 2 or len(more) > 1:
        raise GeometryError(
            f"an image of size {'x'.join(map(str, sizes))}; needed is a volume of at least two voxels each way,"
            " with at most one further axis for channels",
            code="not-3d",
        )
    return (sizes[0], sizes[1], sizes[2]), more[0] if more else 1


def _voxels(header: Path, layout: Layout) -> tuple[Voxels, str]:
    """Read all of a file once: the voxels, and the SHA-256 of the bytes, those of a header of its own included."""
    with read_errors(), archive.open_binary(layout.data) as file:
        hashing = Hashing(file)
        skip(hashing, layout.start)
        content = unpacked(hashing, layout.packing)
        skip(content, layout.before)
        # There is room for no more than `check_length` lets pass.
        buffer = np.empty(layout.nbytes, np.uint8)
        fill(content, buffer)
        drain(content)
        drain(hashing)
        digest = hashing.sha256.hexdigest()
        if layout.data != header:
            digest = _joined([hashlib.sha256(archive.read_bytes(header)).hexdigest(), digest])
    sizes = list(layout.geometry.shape)
    sizes.insert(layout.channel_axis, layout.channels)
    array: Voxels = np.moveaxis(buffer.view(layout.dtype).reshape(sizes, order="F"), layout.channel_axis, 0)
    return _scaled(array[0] if layout.channels == 1 else array, layout.slope, layout.intercept), digest


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _scaled(array: Voxels, slope: float, intercept: float) -> Voxels:
    """Apply slope and intercept; native byte order, integers as they are where there is nothing to apply."""
    scaling = (slope, intercept) != (1, 0)
    if not scaling and array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    values: npt.NDArray[np.float32]
    with np.errstate(over="ignore", invalid="ignore"):  # what doesn't fit becomes infinite or NaN: refused below
        if not scaling:
            values = array.astype(np.float32, copy=False)
        elif array.dtype.itemsize <= 2:
            values = array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        else:  # float32 has room for 24 bits: scaled as doubles
            values = (array.astype(np.float64) * slope + intercept).astype(np.float32)
    if bad := int(values.size - np.isfinite(values).sum()):
        raise InputError(
            f"{bad} of {values.size} voxels are NaN, infinite or too large; replace them by a number such as 0"
            " (numpy.nan_to_num)",
            code="not-finite",
        )
    return values
