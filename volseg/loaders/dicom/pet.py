"""What a PET series says of its units, and the factor to SUV where the header holds all that it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from volseg.loaders import archive

_MEANINGS = {"BQML": "Bq/ml", "CNTS": "counts", "GML": "g/ml (SUV)", "PROPCPS": "proportional to counts per second"}


def pet_notes(path: Path) -> Sequence[str]:
    """Notes on one file of a PET series: the values are kept as stored, and this is what makes SUV of them.

    The factor to SUV by body weight is weight in g / (injected dose in Bq, decayed to the start of the scan), as in
    the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (QIBA) FDG-PET profile.
    """
    try:
        with archive.open_binary(path) as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        units = str(dataset.get("Units") or "")
    except Exception:  # a note isn't worth refusing a scan for
        return ()
    if not units:
        return ("PET without Units: what its values measure isn't said",)
    note = f"PET in {_MEANINGS.get(units, units)} ({units}), kept as stored"
    if units == "BQML":
        try:
            factor = _suv_factor(dataset)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            factor = None
        note += f"; SUV by body weight is {factor:.4g} times that" if factor else "; the header lacks what SUV takes"
    return (note,)


def _suv_factor(dataset: Dataset) -> float | None:
    """Factor from Bq/ml to SUV by body weight in g/ml, None where the header doesn't give it."""
    corrected = {str(item) for item in _several(dataset.get("CorrectedImage"))}
    (tracer,) = dataset.RadiopharmaceuticalInformationSequence
    dose, half_life = float(tracer.RadionuclideTotalDose), float(tracer.RadionuclideHalfLife)
    weight_g = 1000 * float(dataset.PatientWeight)
    if not {"ATTN", "DECY"} <= corrected or min(dose, half_life, weight_g) <= 0:
        return None
    if dataset.get("DecayCorrection") == "START":
        start = _time(dataset, "SeriesDate", "SeriesTime")
        if start > _time(dataset, "AcquisitionDate", "AcquisitionTime"):
            # A series that was made later than it was scanned: its own time is that of the making.
            return None
        injected = tracer.get("RadiopharmaceuticalStartDateTime")
        if injected:
            given = datetime.strptime(str(injected)[:14], "%Y%m%d%H%M%S")
        else:
            given = datetime.combine(start.date(), _clock(str(tracer.RadiopharmaceuticalStartTime)).time())
            given -= timedelta(days=1) if given > start else timedelta()
        dose *= math.exp(-math.log(2) * (start - given).total_seconds() / half_life)
    elif dataset.get("DecayCorrection") != "ADMIN":
        return None
    return weight_g / dose


def _several(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _time(dataset: Dataset, date: str, time: str) -> datetime:
    day = datetime.strptime(str(dataset[date].value), "%Y%m%d")
    return datetime.combine(day.date(), _clock(str(dataset[time].value)).time())


def _clock(text: str) -> datetime:
    return datetime.strptime(text.split(".")[0].ljust(6, "0")[:6], "%H%M%S")
