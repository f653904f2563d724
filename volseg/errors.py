"""Every error that volseg raises on purpose.

::

    VolsegError
     ├── UsageError          the call is wrong: a flag, a path that doesn't exist (exit code 2)
     │    ├── RecipeError    a recipe that can't be used
     │    └── ModelError     a model folder that can't be used
     ├── RefusalError        an input that volseg won't segment, by kind (`code`)
     │    ├── InputError     not an image, or one that can't be read
     │    └── GeometryError  geometry that can't be represented faithfully
     ├── ExportError         a format that can't be written for this case (`code`)
     ├── TrainingError       training can't go on
     └── CancelledError      a run that was told to end

A message is one line that names the file, says what was found and what would help. An error of another library is
wrapped with ``from``.
"""

from __future__ import annotations

import re
from pathlib import Path

#: One word per kind of refusal: the same in errors, in ``result.json`` and in the documentation's table.
CODES: dict[str, str] = {
    # the file itself
    "no-image": "the path holds no image that volseg reads",
    "unreadable": "the file is damaged, cut short, or not what its name says",
    "unsupported": "a kind of object, pixel or compression that volseg doesn't read",
    "not-3d": "a 2D image or a single slice: no volume can be made of it",
    "not-scalar": "colour or complex pixels: a scan has one number a voxel",
    "not-finite": "voxels that are NaN or infinite",
    "constant": "voxels that all have one value: nothing is to be seen",
    # geometry
    "bad-affine": "an affine that is zero, singular or not finite: the voxels have no place in space",
    "missing-geometry": "a slice or a file whose position, orientation or spacing isn't stated",
    "missing-slice": "a gap inside the series: one or more slices are absent",
    "duplicate-slice": "two different images at one position, which nothing in the files tells apart",
    "varying-spacing": "slices that are not evenly spaced",
    "mixed-orientation": "slices of one series that face different ways",
    "mixed-size": "slices of one series that differ in rows, columns or pixel spacing",
    "mixed-frame": "slices of one series in different frames of reference",
    "tilted": "slices that are not stacked along their normal (gantry tilt)",
    "grid-mismatch": "two images that should lie on one grid don't",
    # labels
    "overlap": "segments that overlap, where a mask has one label a voxel",
    # the series against the model
    "modality": "another modality than the model was trained on",
    "spacing": "a spacing outside the range that the model was trained on",
    "field-of-view": "a field of view outside the range that the model was trained on",
    "channels": "another number of channels than the model takes",
    # the machine
    "memory": "more memory is needed than --memory allows, or more room for a temporary file than there is",
    # writing
    "no-identity": "blank UIDs: a DICOM object can't refer to the series (see --repair-uids)",
    "no-source-series": "a DICOM object refers to the source's DICOM series, and this source has none",
    "format": "the format can't hold this mask",
    "no-room": "a file can't be written: the disk is full, or doesn't allow it",
    "internal": "an error inside volseg or a library that it uses",
}


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class VolsegError(Exception):
    """Base of every error raised on purpose.

    Parameters
    ----------
    message
        One line: the file, what was found, what would help.
    """


class UsageError(VolsegError):
    """The call is wrong; nothing was written."""


class RecipeError(UsageError):
    """A recipe that can't be used: a misspelt key, a value out of range."""


class ModelError(UsageError):
    """A model folder that can't be used: absent, damaged, or changed since it was written."""


class _CodedError(VolsegError):
    """An error of a named kind: ``code`` is a key of `CODES`, ``path`` the file or folder in question."""

    def __init__(self, message: str, *, code: str, path: Path | None = None) -> None:
        if code not in CODES:
            raise ValueError(f"unknown code {code!r}; one of {', '.join(CODES)}")
        # A message quotes files, and those may hold anything: line breaks, and what a terminal would obey.
        message = _CONTROL.sub(" ", message)
        super().__init__(message if path is None else f"{path}: {message}")
        self.code = code
        self.reason = message
        self.path = path


class RefusalError(_CodedError):
    """An input that volseg won't segment."""


class InputError(RefusalError):
    """Not an image, or one that can't be read."""


class GeometryError(RefusalError):
    """Geometry that can't be represented faithfully, and isn't guessed."""


class ExportError(_CodedError):
    """A format that can't be written for this case."""


class TrainingError(VolsegError):
    """Training can't go on."""


class CancelledError(VolsegError):
    """A run was told to end before it was done (`volseg.events.Cancel`)."""
