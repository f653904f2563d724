"""GE's echo-planar images of reversed polarity: their rows are stored upside down, and the header doesn't say so."""

from __future__ import annotations

from collections.abc import Mapping

from volseg.loaders.dicom.values import numbers

#: The pulse sequence that stores its images so.
_SEQUENCE = "epi_pepolar"
#: What its user data 12 means: no volume, all, those with an odd number, those with an even one.
_NONE, _ALL, _ODD, _EVEN = range(4)


def rows_reversed(values: Mapping[str, str]) -> bool | None:
    """Whether an image's rows are stored from the last to the first; None where that can't be known.

    By private elements of GE's: the sequence's name (0019,109C), and which volumes it reversed (0019,10B3). A volume's
    number is its TemporalPositionIdentifier, from 1, as in dcm2niix.
    """
    if _SEQUENCE not in values.get("PulseSequence", "").lower():
        return False
    said = numbers(values.get("ReversedPolarity", ""), 1)
    time = numbers(values.get("TemporalPositionIdentifier", ""), 1)
    if said and said[0] in (_NONE, _ALL):
        return said[0] == _ALL
    if said and said[0] in (_ODD, _EVEN) and time:
        return (time[0] % 2 == 1) == (said[0] == _ODD)
    return None
