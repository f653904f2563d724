"""Functional groups read from their bytes: the same as pydicom has, or nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.helpers.dicom_files import lps_affine, rotation, voxels
from tests.helpers.dicom_objects import enhanced_mr, items, save
from volseg.errors import InputError
from volseg.loaders.dicom import header
from volseg.loaders.dicom.frame_scan import scan_frames
from volseg.loaders.dicom.frames import frame_values
from volseg.loaders.dicom.header import read_header
from volseg.loaders.dicom.header_scan import scan
from volseg.loaders.dicom.values import FRAME_GROUPS, SHARED_GROUPS, WANTED

SHAPE = (5, 4, 6)


def nested(depth: int) -> Dataset:
    """Private sequences inside each other, as Siemens' XA software writes into each frame."""
    item = Dataset()
    block = item.private_block(0x0021, "SIEMENS MR SDI 02", create=True)
    block.add_new(0x01, "IS", [1, 2, 3])
    block.add_new(0x02, "LO", "text")
    if depth:
        block.add_new(0xFE, "SQ", Sequence([nested(depth - 1), nested(depth - 1)]))
    return item


def full(undefined: bool) -> Dataset:
    """An object whose frames say all that is looked at."""
    dataset = enhanced_mr(voxels(SHAPE), lps_affine(directions=rotation(20, -10, 5)))
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.MREchoSequence = items(EffectiveEchoTime=4.6 + index)
        frame.MRTimingAndRelatedParametersSequence = items(FlipAngle=30.5, RepetitionTime=2000.0)
        frame.MRModifierSequence = items(InversionTimes=[50.0, 900.25])
        frame.MRDiffusionSequence = items(
            DiffusionBValue=1000.0,
            DiffusionGradientDirectionSequence=items(DiffusionGradientOrientation=[0.1, 0.2, 1 / 3 + index]),
        )
        frame.MRImageFrameTypeSequence = items(FrameType=["ORIGINAL", "PRIMARY", "M"], ComplexImageComponent="PHASE")
        frame.FrameContentSequence[0].TemporalPositionIndex = index // 2
        frame.FrameContentSequence[0].FrameAcquisitionDateTime = "20200102030405.25"
        frame.MRArterialSpinLabelingSequence = items(ASLContext="LABEL")
        frame.UnassignedPerFrameConvertedAttributesSequence = items(EchoNumbers=index, TriggerTime="17.50")
        frame.update(nested(2))
    if undefined:
        undefine(dataset)
    return dataset


def undefine(dataset: Dataset) -> None:
    """Write every sequence and item without its length."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                undefine(item)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_same_as_pydicom(tmp_path: Path, syntax: Any, undefined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(full(undefined), tmp_path / "enhanced.dcm", syntax)
    expected = frame_values(pydicom.dcmread(path))
    monkeypatch.setattr(header, "_parsed", None)  # nothing is left to pydicom
    found = read_header(path)
    assert isinstance(found, header.Header)
    assert found.frames == expected
    assert expected[1]["DiffusionGradientOrientation"] != expected[0]["DiffusionGradientOrientation"]


def test_what_differs_between_frames_and_what_all_share(tmp_path: Path) -> None:
    found = read_header(save(full(True), tmp_path / "enhanced.dcm"))
    assert isinstance(found, header.Header)
    assert [frame["EchoTime"] for frame in found.frames] == [f"{4.6 + index:.17g}" for index in range(6)]
    assert {float(frame["PixelSpacing"].split("\\")[1]) for frame in found.frames} == {0.7}
    assert [frame["EchoNumbers"] for frame in found.frames] == ["0", "1", "2", "3", "4", "5"]


def _bytes() -> tuple[bytes, bytes]:
    stream = io.BytesIO()
    dataset = full(True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(stream, enforce_file_format=True)
    found = scan(io.BytesIO(stream.getvalue()), len(stream.getvalue()), WANTED)
    assert found is not None
    return found.elements[SHARED_GROUPS][1], found.elements[FRAME_GROUPS][1]


SHARED, EACH = _bytes()


@given(st.lists(st.tuples(st.integers(0, len(EACH) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(EACH)))
def test_damage_gives_nothing_or_frames(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(EACH)
    for place, value in changes:
        data[place] = value
    for damaged in (bytes(data), EACH[:end]):
        found = scan_frames(SHARED, damaged, 6, explicit=True, text=lambda vr, raw: f"{vr} {len(raw)}")
        assert found is None or len(found) == 6


def test_another_number_of_frames_is_left_to_pydicom(tmp_path: Path) -> None:
    dataset = full(False)
    dataset.NumberOfFrames = 7
    dataset.PixelData += np.zeros(SHAPE[:2], np.int16).tobytes()
    with pytest.raises(InputError, match="7 frames, and functional groups of 6"):
        read_header(save(dataset, tmp_path / "enhanced.dcm"))
