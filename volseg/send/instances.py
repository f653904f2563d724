"""What there is to send, and what a destination has accepted already."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from volseg.errors import UsageError
from volseg.loaders.dicom.quiet import quiet

#: What was accepted, a line an instance; it lies in the folder that is sent, or beside the file.
SENT = "sent.jsonl"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A DICOM file to send."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str


def find_instances(path: Path) -> list[Instance]:
    """The DICOM file at `path`, or all DICOM files in a folder and those below it, in the order of their paths.

    Raises
    ------
    UsageError
        The path doesn't exist, or holds none.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    quiet()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    found = [instance for file in files if (instance := _instance(file)) is not None]
    if not found:
        raise UsageError(f"{path}: holds no DICOM file; --format seg,rtstruct,sr writes such")
    return found


def _instance(path: Path) -> Instance | None:
    """The instance in a file; None where it isn't a DICOM file with its file meta information."""
    try:
        meta = pydicom.dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).file_meta
        identity = {
            "sop_class_uid": str(meta.MediaStorageSOPClassUID),
            "sop_instance_uid": str(meta.MediaStorageSOPInstanceUID),
            "transfer_syntax_uid": str(meta.TransferSyntaxUID),
        }
    except (InvalidDicomError, AttributeError, OSError):
        return None
    with path.open("rb") as file:
        return Instance(path=path, sha256=hashlib.file_digest(file, "sha256").hexdigest(), **identity)


class Sent:
    """What a destination has accepted, kept in a file an instance at a time: a call that was cut off goes on there.

    Parameters
    ----------
    path
        Folder or file that is sent.
    destination
        Name of the destination, as it calls itself.
    """

    def __init__(self, path: Path, destination: str) -> None:
        self._file = (path if path.is_dir() else path.parent) / SENT
        self._destination = destination
        self._known = set(self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        if not self._file.exists():
            return
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                found = json.loads(line)
                if found["to"] == self._destination:
                    yield found["instance"], found["sha256"]
            except (ValueError, KeyError, TypeError):
                # The last line of a process that was killed while it wrote.
                continue

    def __contains__(self, instance: Instance) -> bool:
        return (instance.sop_instance_uid, instance.sha256) in self._known

    def add(self, instance: Instance) -> None:
        """Keep that an instance was accepted; it is on the disk when this returns."""
        said = {
            "to": self._destination,
            "instance": instance.sop_instance_uid,
            "sha256": instance.sha256,
            "file": instance.path.name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._file.open("ab") as file:
            # On a line of its own, after what a killed process may have left of one.
            file.write(f"\n{json.dumps(said)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self._known.add((instance.sop_instance_uid, instance.sha256))
