"""The voxels of a DICOM series: decode, rescale, and hash what was read.

The array is filled slice by slice, in threads, each of which holds the bytes of one slice beside it. A file of one
image is read once; one of many frames is hashed in pieces and then read frame by frame.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from volseg.errors import InputError, RefusalError
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate
from volseg.loaders.dicom.codec_process import Codecs
from volseg.loaders.dicom.codecs import Cells, Layout, decode
from volseg.loaders.dicom.element import Frame, frames
from volseg.loaders.dicom.header import Header, read_header
from volseg.loaders.dicom.mosaic import side
from volseg.loaders.dicom.quiet import quiet
from volseg.volume import DicomSource, Instance, Source, Volume, Voxels

#: Files that are read at the same time; reading, hashing and codecs run outside Python's lock.
THREADS = 4
#: Bytes that one byte of a file may become: an empty slice of 4096 x 4096 in JPEG 2000 comes to 42,000.
LARGEST_RATIO = 100_000
#: Rows that are rescaled to floating-point numbers at once: few enough for a processor's cache.
ROWS = 64

#: Largest magnitude of a value, as a 32-bit floating-point number has it.
LARGEST = 3e38

#: A task fills one or more slices.
_Task = Callable[[], None]


def read(candidate: Candidate) -> Volume:
    """Voxels of a DICOM series.

    Returns
    -------
    Volume
        [column, row, slice], slices ascending along row x column direction. Integers where every slope is 1, every
        intercept whole, and 32 bits with a sign suffice; else float32. Padding values are left as they are.

    Raises
    ------
    InputError
        Codes ``unreadable`` (damaged, or changed since it was found) and ``unsupported``.
    """
    geometry = candidate.geometry
    assert geometry is not None  # a usable candidate has one
    columns, rows, slices = geometry.shape
    digests: dict[Path, str] = {}
    quiet()
    with ThreadPoolExecutor(THREADS) as pool, Codecs(min(THREADS, os.cpu_count() or 1)) as codecs:
        files = dict(zip(candidate.files, pool.map(_header, candidate.files), strict=True))
        images = _images(candidate, files)
        dtype = _dtype(images)
        _check_ratio(candidate, slices * rows * columns * dtype.itemsize)
        try:
            # Stored [slice, row, column] and shown reversed, without moving a byte.
            array = np.empty((slices, rows, columns), dtype)
        except MemoryError as error:
            raise InputError(
                f"{columns} x {rows} x {slices} voxels don't fit into memory", code="unsupported", path=candidate.path
            ) from error
        _run(pool, _tasks(candidate, files, images, array, digests, codecs))
    source = Source(
        kind="dicom",
        name=candidate.name,
        path=candidate.path,
        modality=candidate.modality,
        description=candidate.description,
        sha256=hashlib.sha256("\n".join(digests[path] for path in candidate.files).encode()).hexdigest(),
        notes=candidate.notes,
        dicom=_source(images),
    )
    return Volume(array.transpose(2, 1, 0), geometry, source)


def same_image(first: Header, second: Header) -> bool:
    """Whether two files hold one image: the same bytes, or else the same values and the same pixels however encoded."""
    one, two = (archive.read_bytes(header.path) for header in (first, second))
    if one == two:
        return True
    values = [{**header.values, "TransferSyntaxUID": ""} for header in (first, second)]
    if values[0] != values[1] or first.frames != second.frames or first.problem or second.problem:
        return False
    try:
        with Codecs(1) as codecs:
            ours, theirs = _stored(io.BytesIO(one), first, codecs), _stored(io.BytesIO(two), second, codecs)
            return all(np.array_equal(*frame) for frame in zip(ours, theirs, strict=True))
    except (RefusalError, ValueError):
        return False


def _stored(file: BinaryIO, header: Header, codecs: Codecs) -> Iterator[Cells]:
    """Stored values [row, column] of each frame."""
    layout = Layout.of(header)
    for frame in frames(file, header, layout):
        yield _values(frame, header, layout, codecs)


def _check_ratio(candidate: Candidate, needed: int) -> None:
    """Refuse a header that claims more pixels than any file of this size can hold, before memory is asked for them."""
    held = sum(archive.size_of(path) for path in candidate.files)
    if needed > LARGEST_RATIO * held:
        raise InputError(
            f"{needed} bytes of pixels are claimed by {held} bytes of files; copy or export them again",
            code="unreadable",
            path=candidate.path,
        )


def _header(path: Path) -> Header:
    header = read_header(path)
    if not isinstance(header, Header) or header.problem:
        raise InputError("changed since it was found", code="unreadable", path=path)
    return header


def _images(candidate: Candidate, files: Mapping[Path, Header]) -> list[Header]:
    """The header of each slice."""
    split = {path: header.split() for path, header in files.items()}
    try:
        return [split[path][frame] for path, frame in candidate.slices]
    except IndexError as error:
        raise InputError("changed since it was found", code="unreadable", path=candidate.path) from error


def _source(images: Sequence[Header]) -> DicomSource:
    first = images[0]
    instances = tuple(
        Instance(
            path=image.path,
            sop_class_uid=image.sop_class_uid,
            sop_instance_uid=image.sop_instance_uid,
            frame=image.frame,
            as_stored=not (image.mosaic or image.rows_reversed),
        )
        for image in images
    )
    unique = len({(instance.sop_instance_uid, instance.frame) for instance in instances}) == len(instances)
    return DicomSource(
        study_uid=first.text("StudyInstanceUID"),
        series_uid=first.text("SeriesInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        instances=instances,
        identity=unique and not any(image.blank_identity for image in images),
    )


def _rescale(image: Header) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where they aren't given."""
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        numbers = image.numbers(keyword, 1)
        if image.text(keyword) and numbers is None:
            raise InputError(f"{keyword} is {image.text(keyword)!r}, no number", code="unreadable", path=image.path)
        values.append(numbers[0] if numbers else default)
    slope, intercept = values
    if slope == 0:
        raise InputError("RescaleSlope is 0: all values would be the same", code="unreadable", path=image.path)
    if abs(slope) * 2**32 + abs(intercept) > LARGEST:
        raise InputError(
            f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} make numbers that are too large",
            code="unreadable",
            path=image.path,
        )
    return slope, intercept


def _dtype(images: Sequence[Header]) -> np.dtype[Any]:
    """Type that holds the rescaled values of every slice: the smallest of int16 and int32, else float32."""
    lowest, highest = 0.0, 0.0
    for image in images:
        slope, intercept = _rescale(image)
        if slope != 1 or intercept != int(intercept):
            return np.dtype(np.float32)
        low, high = Layout.of(image).range
        lowest, highest = min(lowest, intercept + low), max(highest, intercept + high)
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def _run(pool: ThreadPoolExecutor, tasks: Iterable[_Task]) -> None:
    """Run tasks as threads become free: a task that waits may hold the bytes of its frame."""
    running: deque[Future[None]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(task))
            if len(running) >= THREADS:
                running.popleft().result()
        while running:
            running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _tasks(
    candidate: Candidate,
    files: Mapping[Path, Header],
    images: Sequence[Header],
    array: Voxels,
    digests: dict[Path, str],
    codecs: Codecs,
) -> Iterator[_Task]:
    """A task for each file of one image or mosaic, and for each frame of the others."""
    wanted: dict[Path, dict[int, tuple[Header, Voxels]]] = {path: {} for path in candidate.files}
    for (path, frame), image, place in zip(candidate.slices, images, array, strict=True):
        wanted[path][frame] = image, place
    for path, places in wanted.items():
        if (files[path].integer("NumberOfFrames") or 1) > 1:
            yield from _frames_of_file(files[path], places, digests, codecs)
        elif files[path].mosaic:
            yield partial(_mosaic_file, files[path], places, digests, codecs)
        else:
            yield partial(_whole_file, *places[0], digests, codecs)


def _whole_file(image: Header, place: Voxels, digests: dict[Path, str], codecs: Codecs) -> None:
    _fill(_only_frame(image, digests), image, place, codecs)


def _mosaic_file(
    header: Header, places: Mapping[int, tuple[Header, Voxels]], digests: dict[Path, str], codecs: Codecs
) -> None:
    layout = Layout.of(header)
    stored = _values(_only_frame(header, digests), header, layout, codecs)
    across = side(len(header.split()))
    for tile, (image, place) in places.items():
        rows, columns = Layout.of(image).shape
        row, column = tile // across * rows, tile % across * columns
        _put(stored[row : row + rows, column : column + columns], image, place)


def _only_frame(image: Header, digests: dict[Path, str]) -> Frame:
    """The frame of a file of one; what else the file holds is forgotten with it."""
    content = archive.read_bytes(image.path)
    digests[image.path] = hashlib.sha256(content).hexdigest()
    (frame,) = frames(io.BytesIO(content), image, Layout.of(image))
    return frame


def _frames_of_file(
    header: Header, places: Mapping[int, tuple[Header, Voxels]], digests: dict[Path, str], codecs: Codecs
) -> Iterator[_Task]:
    with archive.read_errors(header.path), archive.open_binary(header.path) as file:
        digests[header.path] = _digest(file)
        for index, frame in enumerate(frames(file, header, Layout.of(header))):
            if index in places:
                yield partial(_fill, frame, *places[index], codecs)


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _fill(frame: Frame, image: Header, place: Voxels, codecs: Codecs) -> None:
    """Put the rescaled values of one frame into its place [row, column]."""
    _put(_values(frame, image, Layout.of(image), codecs), image, place)


def _put(stored: Cells, image: Header, place: Voxels) -> None:
    """Put the rescaled values of stored ones [row, column] into their place, upright."""
    if stored.shape != place.shape:
        raise InputError("changed since it was found", code="unreadable", path=image.path)
    if image.rows_reversed:
        stored = stored[::-1]
    slope, intercept = _rescale(image)
    if place.dtype.kind == "i":
        np.add(stored, int(intercept), out=place, dtype=place.dtype, casting="unsafe")
    else:
        _as_floats(stored, slope, intercept, place)


def _values(frame: Frame, image: Header, layout: Layout, codecs: Codecs) -> Cells:
    """Stored values [row, column] of one frame."""
    if frame.compressed:
        return decode(frame.content, image.transfer_syntax, layout, codecs, image.path)
    cells = np.frombuffer(frame.content, layout.cell.newbyteorder(frame.order)).reshape(layout.shape)
    return layout.values(cells, image.path)


def _as_floats(stored: Cells, slope: float, intercept: float, place: Voxels) -> None:
    for start in range(0, len(stored), ROWS):
        # Computed with 64 bits and rounded once.
        place[start : start + ROWS] = stored[start : start + ROWS] * np.float64(slope) + intercept
