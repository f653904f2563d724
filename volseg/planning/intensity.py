"""How the values of each channel become network input, and which modality it accepts."""

from __future__ import annotations

from typing import Any

from volseg.planning.fingerprint import Fingerprint, Intensities
from volseg.planning.written import Choice, printable

#: DICOM's terms for the names that datasets give their channels.
_MODALITIES = {
    **dict.fromkeys(("ct",), "CT"),
    **dict.fromkeys(("pet", "pt", "suv"), "PT"),
    **dict.fromkeys(
        ("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f", "flair", "adc", "dwi"), "MR"
    ),
}
#: Names by which nnU-Net's datasets ask for a normalisation.
_ASKED: dict[str, dict[str, Any]] = {
    "nonorm": {"scheme": "none"},
    "rescale_to_0_1": {"scheme": "minmax"},
    "rgb_to_0_1": {"scheme": "fixed", "mean": 0.0, "std": 255.0},
}
#: A scan whose lowest value is below this is in Hounsfield units: air is -1000.
AIR = -500.0
#: A smaller standard deviation is no divisor.
SMALLEST_STD = 1e-3


def channel_choices(fingerprint: Fingerprint, sparse: bool) -> tuple[Choice, tuple[Choice, ...], bool]:
    """Channels, the recipe's intensity and crop.

    Parameters
    ----------
    fingerprint
        Fingerprint of the dataset.
    sparse
        Whether much of the scans is 0.

    Returns
    -------
    tuple
        The channels, what else stands in the recipe, and whether scans are cropped to their content.
    """
    names = fingerprint.naming.channels or tuple(
        f"image_{number}" if number else "image" for number in range(len(fingerprint.intensities))
    )
    stated = {case.modality for case in fingerprint.cases}
    rows: list[dict[str, Any]] = []
    kinds: list[tuple[dict[str, Any], str]] = []
    reasons = []
    for name, values in zip(names, fingerprint.intensities, strict=True):
        modality, found = _modality(name, stated, values)
        kind, why = _intensity(name, modality, values, sparse)
        rows.append({"name": printable(name), "modalities": [modality] if modality else []})
        reasons.append(f"{name}: {found}")
        kinds.append((kind, why))
    cropped = sparse and any(kind.get("use_mask") for kind, _ in kinds)
    if all(kind == kinds[0][0] for kind, _ in kinds):
        choices = [Choice("intensity", tuple(Choice(*item) for item in kinds[0][0].items()), kinds[0][1])]
    else:
        rows = [{**row, "intensity": kind} for row, (kind, _) in zip(rows, kinds, strict=True)]
        reasons += [f"{name}: {why}" for name, (_, why) in zip(names, kinds, strict=True)]
        choices = []
    if cropped:
        choices.append(Choice("crop", "nonzero", "Much of a scan is 0: the network sees the rest alone."))
    return Choice("channels", rows, " ".join(reasons)), tuple(choices), cropped


def _modality(name: str, stated: set[str | None], values: Intensities) -> tuple[str | None, str]:
    if known := _MODALITIES.get(name.strip().casefold()):
        return known, f"{known} by its name."
    if len(stated) == 1 and (only := next(iter(stated))):
        return only, f"{only} by the scans' headers."
    if values.lowest < AIR:
        return "CT", f"taken for CT, since values go down to {values.lowest:g}; correct it where that is wrong."
    return None, "any modality: neither name nor headers say which."


def _intensity(name: str, modality: str | None, values: Intensities, sparse: bool) -> tuple[dict[str, Any], str]:
    if asked := _ASKED.get(name.strip().casefold()):
        return asked, "As the channel's name asks."
    if modality == "CT":
        fixed = {
            "scheme": "fixed",
            "clip": [round(values.low, 4), round(values.high, 4)],
            "mean": round(values.mean, 4),
            "std": round(max(values.std, SMALLEST_STD), 4),
        }
        return fixed, (
            "CT has units: clipped to the 0.5th and 99.5th percentile of all labelled voxels, then their mean and"
            " standard deviation, as nnU-Net."
        )
    if sparse:
        return {"scheme": "zscore", "use_mask": True}, (
            "Values have no unit: each case by its own mean and standard deviation, of what isn't 0, since that is less"
            " than three quarters of the median scan."
        )
    return {"scheme": "zscore"}, "Values have no unit: each case by its own mean and standard deviation."
