"""UIDs for a DICOM series whose own are blank: a copy that other DICOM objects can refer to."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from volseg.errors import InputError, RefusalError, UsageError
from volseg.export.outputs import FinishedCase, Written
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate
from volseg.loaders.dicom.header import element_text, transfer_syntax
from volseg.loaders.dicom.quiet import quiet
from volseg.loaders.dicom.values import IDENTITY
from volseg.loaders.listing import find
from volseg.results import REPAIRED


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Copy the series where its UIDs are blank; why that can't be done is a note."""
    source = case.scan.source
    if source.dicom is None or source.dicom.identity:
        return Written()
    try:
        # Of several channels, the first is the one that the mask belongs to.
        copy = repair_uids((case.candidate.parts or (case.candidate,))[0], folder / REPAIRED)
    except RefusalError as error:
        return Written(notes=(error.reason,))
    read = copy.load(resample_tilt=source.stored is not None)
    return Written(case=replace(case, mask=replace(case.mask, source=read.source)))


def repair_uids(candidate: Candidate, folder: Path) -> Candidate:
    """Write a copy of a series whose blank UIDs are filled in.

    The new UIDs are made from the instance UIDs of the file meta information, or where there are none from the files'
    content: the same series gets the same UIDs each time. All else is copied as it is; pixel data stay compressed.
    Of a series that holds several volumes, the files of this one are copied, which are multi-frame files with all of
    their frames.

    Parameters
    ----------
    candidate
        A DICOM series that is usable, or tilted.
    folder
        Folder to write the copy to. It appears when the copy is complete.

    Returns
    -------
    Candidate
        Of the copy, under the case name of the original; `candidate` itself where no UID is blank.

    Raises
    ------
    RefusalError
        The series isn't usable.
    InputError
        Code ``unreadable``: a file can't be read any more. Code ``no-identity``: its kind (SOP class) isn't known.
    UsageError
        `folder` holds something else.
    """
    if candidate.kind != "dicom":
        raise UsageError(f"{candidate.path}: not a DICOM series; it has no UIDs to repair")
    if candidate.code not in (None, "tilted"):
        candidate.load()  # raises its refusal
    quiet()
    datasets = [_read(path) for path in candidate.files]
    if all(element_text(dataset, keyword) for dataset in datasets for keyword in IDENTITY):
        return candidate
    _fill(datasets, [_entropy(dataset, path) for dataset, path in zip(datasets, candidate.files, strict=True)])
    _write(datasets, folder)
    copies = dict(zip(candidate.files, _names(folder, len(datasets)), strict=True))
    # A multi-frame file holds other volumes as well.
    slices = tuple((copies[path], frame) for path, frame in candidate.slices)
    copy = next(found for found in find(folder).candidates if found.slices == slices)
    return replace(copy, name=candidate.name, notes=(*copy.notes, "blank UIDs were filled in (--repair-uids)"))


def _read(path: Path) -> FileDataset:
    try:
        with archive.open_binary(path) as file:
            dataset = pydicom.dcmread(file, force=True)
    except Exception as error:
        raise InputError(f"can't be read: {error}", code="unreadable", path=path) from error
    dataset.file_meta.TransferSyntaxUID = transfer_syntax(dataset)
    if not element_text(dataset, "SOPClassUID"):
        known = element_text(dataset.file_meta, "MediaStorageSOPClassUID")
        if not known:
            raise InputError("SOP class UID is blank everywhere", code="no-identity", path=path)
        dataset.SOPClassUID = known
    return dataset


def _entropy(dataset: FileDataset, path: Path) -> str:
    """What an image's new UID is made from."""
    known = element_text(dataset, "SOPInstanceUID") or element_text(dataset.file_meta, "MediaStorageSOPInstanceUID")
    return known or hashlib.sha256(archive.read_bytes(path)).hexdigest()


def _fill(datasets: Sequence[FileDataset], entropies: Sequence[str]) -> None:
    """Fill in the UIDs that are blank; those of the series are the same in each of its files."""
    shared = {
        keyword: next((text for dataset in datasets if (text := element_text(dataset, keyword))), None)
        or generate_uid(entropy_srcs=[keyword, *entropies])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    }
    for dataset, entropy in zip(datasets, entropies, strict=True):
        for keyword, uid in shared.items():
            if not element_text(dataset, keyword):
                setattr(dataset, keyword, uid)
        if not element_text(dataset, "SOPInstanceUID"):
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=["SOPInstanceUID", entropy])
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _names(folder: Path, count: int) -> list[Path]:
    return [folder / f"slice_{number:04d}.dcm" for number in range(1, count + 1)]


def _write(datasets: Sequence[FileDataset], folder: Path) -> None:
    """Write the files beside `folder`, then give them its name; the same files already there are as good."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary, "series")
        new.mkdir()
        for dataset, path in zip(datasets, _names(new, len(datasets)), strict=True):
            dataset.save_as(path, enforce_file_format=True)
        if folder.is_dir():
            there, wanted = (sorted(path.name for path in place.iterdir()) for place in (folder, new))
            if there == wanted and not any(filecmp.cmpfiles(folder, new, wanted, shallow=False)[1:]):
                return
            if there:
                raise UsageError(f"{folder}: holds other files; name a folder that doesn't exist yet")
            folder.rmdir()
        shutil.move(new, folder)
