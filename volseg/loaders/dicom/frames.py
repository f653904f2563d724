"""The frames of an enhanced multi-frame object: what its functional groups say of each, under the classic keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset

#: Most frames of one file.
MOST_FRAMES = 100_000
#: Functional groups that are looked at, and by the keywords in them the classic ones that say the same.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {"RescaleSlope": "RescaleSlope", "RescaleIntercept": "RescaleIntercept"},
    "FrameContentSequence": {
        "StackID": "StackID",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
    },
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRTimingAndRelatedParametersSequence": {"FlipAngle": "FlipAngle"},
    "MRArterialSpinLabelingSequence": {"ASLContext": "ASLContext"},
    "MRModifierSequence": {"InversionTimes": "InversionTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType", "ComplexImageComponent": "ComplexImageComponent"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "PETFrameTypeSequence": {"FrameType": "ImageType"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "TemporalPositionSequence": {"TemporalPositionTimeOffset": "TriggerTime"},
    # Objects converted from single frames keep here what they were.
    "UnassignedSharedConvertedAttributesSequence": {},
    "UnassignedPerFrameConvertedAttributesSequence": {
        "EchoTime": "EchoTime",
        "EchoNumbers": "EchoNumbers",
        "TriggerTime": "TriggerTime",
        "TemporalPositionIdentifier": "TemporalPositionIdentifier",
        "InversionTime": "InversionTime",
        "ImageType": "ImageType",
    },
}
#: Of diffusion, the sequence and the element in it that hold a gradient's direction.
DIRECTIONS, DIRECTION = "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"


def frame_values(dataset: Dataset) -> tuple[Mapping[str, str], ...]:
    """What each frame of a multi-frame object says, as texts by classic keyword; empty for a single image.

    A frame's own groups come before those that all frames share.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = _whole(dataset.get("NumberOfFrames"))
    if not per_frame and "SharedFunctionalGroupsSequence" not in dataset:
        # A film without geometry: a frame each, so that it isn't taken for an image of one.
        return ({},) * min(count, MOST_FRAMES) if count > 1 else ()
    shared: dict[str, str] = {}
    for item in list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]:
        shared = _flat(item)
    if len(per_frame) != count:
        raise ValueError(f"{count} frames, and functional groups of {len(per_frame)}")
    return tuple({**shared, **_flat(item)} for item in per_frame)


def _flat(groups: Dataset) -> dict[str, str]:
    values: dict[str, str] = {}
    for group, keywords in GROUPS.items():
        for item in list(groups.get(group) or [])[:1]:
            for theirs, ours in keywords.items():
                if text := _text(item.get(theirs)):
                    values[ours] = text
            directions = item.get(DIRECTIONS) if group == "MRDiffusionSequence" else None
            for direction in list(directions or [])[:1]:
                values[DIRECTION] = _text(direction.get(DIRECTION))
    return values


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(_text(item) for item in value)
    return f"{value:.17g}" if type(value) is float else str(value).strip(" \0")


def _whole(value: Any) -> int:
    try:
        return int(value or 1)
    except (TypeError, ValueError):
        return 1
