"""Labels as other formats want them: words that fit, a code for each, and no voxel without a label."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from volseg.errors import ExportError
from volseg.volume import Code, Label, LabelVolume

#: Scheme of the codes of labels without a standard one.
PRIVATE_SCHEME = "99VOLSEG"
#: Longest text of DICOM's value representations LO and SH.
LO_LENGTH, SH_LENGTH = 64, 16

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def text(words: str, length: int = LO_LENGTH) -> str:
    """`words` as DICOM's LO or SH takes them; the backslash separates values there."""
    return " ".join(_CONTROL.sub(" ", words).replace("\\", "/").split())[:length].strip() or "unnamed"


def private_code(label: Label) -> Code:
    """A code of our own for a label that has none: the same for the same name."""
    value = hashlib.sha256(label.name.encode()).hexdigest()[:16].upper()
    return Code(value=value, scheme=PRIVATE_SCHEME, meaning=text(label.name))


def check_declared(label_volume: LabelVolume, path: Path) -> None:
    """Refuse a mask with a voxel whose value no label declares: a format with names would drop it.

    Raises
    ------
    ExportError
        Code ``format``.
    """
    values = [label.value for label in label_volume.labels]
    for array in (label_volume.array, *label_volume.layers):
        known = np.zeros(max([int(array.max()), *values]) + 1, np.bool_)
        known[[0, *values]] = True
        if not known[array].all():
            raise ExportError("the mask has voxels whose value no label declares", code="format", path=path)
