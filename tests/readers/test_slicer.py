"""slicerio, 3D Slicer's own reader in Python, reads a .seg.nrrd: voxels, grid, names, colours and terms."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.helpers.oblique_masks import SHAPE, oblique
from tests.helpers.scans import LABELS
from volseg.export import nrrd
from volseg.geometry import ras_from_lps
from volseg.volume import LabelVolume

pytestmark = pytest.mark.readers

PYTHON = ROOT / ".venv-readers" / "bin" / "python"
PROGRAM = Path(__file__).with_name("programs") / "slicer.py"


def test_slicerio(tmp_path: Path) -> None:
    assert PYTHON.exists(), f"{PYTHON} is absent; bash .ci/readers makes it"
    array = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3).astype(np.uint8)
    mask = LabelVolume(array, oblique(), LABELS)
    nrrd.write(mask, tmp_path / "m.seg.nrrd")
    command = [PYTHON, PROGRAM, tmp_path / "m.seg.nrrd", tmp_path / "out.npz"]
    segments = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(found["voxels"], array)
    np.testing.assert_allclose(ras_from_lps(found["lps_from_ijk"]), oblique().affine, atol=1e-9)
    for segment, label in zip(segments, LABELS, strict=True):
        assert label.code is not None
        assert label.modifier is not None
        assert (segment["name"], segment["value"], segment["layer"]) == (label.name, label.value, 0)
        np.testing.assert_allclose(np.array(segment["colour"]) * 255, label.colour, atol=1e-3)
        terms = segment["terminology"]
        assert terms["category"] == ["SCT", "91723000", "Anatomical Structure"]
        assert terms["type"] == ["SCT", label.code.value, label.code.meaning]
        assert terms["typeModifier"] == ["SCT", label.modifier.value, label.modifier.meaning]
