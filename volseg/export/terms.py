"""Labels as other formats want them: words that fit, and a code for each."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from volseg.labels.dictionary import with_codes
from volseg.volume import Code, Label

#: Scheme of the codes of labels without a standard one.
PRIVATE_SCHEME = "99VOLSEG"
#: Longest text of DICOM's value representations LO and SH.
LO_LENGTH, SH_LENGTH = 64, 16

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def text(words: str, length: int = LO_LENGTH) -> str:
    """`words` as DICOM's LO or SH takes them; the backslash separates values there."""
    return " ".join(_CONTROL.sub(" ", words).replace("\\", "/").split())[:length].strip() or "unnamed"


def with_code(label: Label) -> Label:
    """A label that has a code: its own, the dictionary's, or a private one."""
    known = with_codes(label)
    return known if known.code is not None else replace(known, code=private_code(known))


def private_code(label: Label) -> Code:
    """A code of our own for a label that has none: the same for the same name."""
    value = hashlib.sha256(label.name.encode()).hexdigest()[:16].upper()
    return Code(value=value, scheme=PRIVATE_SCHEME, meaning=text(label.name))
