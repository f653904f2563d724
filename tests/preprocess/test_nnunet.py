"""Network input and masks as nnunetv2 makes them; `benchmarks/record_preprocessing.py` recorded what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.npyio import NpzFile

from volseg.config import Recipe, recipe_from_dict
from volseg.geometry import Geometry
from volseg.preprocess import prepare
from volseg.resample import resize
from volseg.volume import Volume

RECORDS = sorted((Path(__file__).parents[1] / "data" / "nnunet" / "preprocessing").glob("*.npz"))
#: nnunetv2 computes splines in double and sums in single precision; ours is the reverse. Share of the value range.
TOLERANCE = 1e-4
#: Logits differ by eighths; a sum of eight with weights in single precision is off by less than this.
LOGIT_ROUNDING = 1e-5


def recipe_of(about: dict[str, Any]) -> Recipe:
    """The recipe that stands for nnunetv2's plans."""
    foreground = about["foreground"]
    schemes = {
        "CTNormalization": {
            "scheme": "fixed",
            "clip": [foreground["percentile_00_5"], foreground["percentile_99_5"]],
            "mean": foreground["mean"],
            "std": foreground["std"],
        },
        "ZScoreNormalization": {"scheme": "zscore", "use_mask": about["use_mask"]},
        "RescaleTo01Normalization": {"scheme": "minmax"},
        "NoNormalization": {"scheme": "none"},
        "RGBTo01Normalization": {"scheme": "fixed", "std": 255},
    }
    reorients = about["reader"] == "NibabelIOWithReorient"
    letters = "".join(("SAR" if reorients else "KJI")[axis] for axis in about["transpose"])
    separate = {None: "auto", False: "never", True: "always"}[about["force_separate_z"]]
    return recipe_from_dict(
        {
            "name": "recorded",
            "channels": [{"name": s, "modalities": [], "intensity": schemes[s]} for s in about["schemes"]],
            "labels": [
                {"value": value, "name": str(value), "colour": [0, 0, 0]}
                for value in range(1, 4 if about["regions"] else 3)
            ],
            "output": "sigmoid" if about["regions"] else "softmax",
            "orientation": letters if reorients else f"stored-{letters}",
            "spacing_mm": about["target_mm"],
            "window": [8, 8, 8],
            "crop": "nonzero",
            "resampling": {"image_order": about["order"], "separate_axis": separate},
        },
        "record",
    )


@pytest.fixture(params=RECORDS, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> tuple[NpzFile, Volume, Recipe]:
    record = np.load(request.param)
    volume = Volume(record["array"], Geometry(record["array"].shape[1:], record["affine"]))
    return record, volume, recipe_of(json.loads(str(record["about"])))


def test_network_input_is_that_of_nnunetv2(recorded: tuple[NpzFile, Volume, Recipe]) -> None:
    record, volume, recipe = recorded
    got, expected = prepare(volume, recipe).tensor_CDHW.numpy(), record["prepared"]
    assert got.shape == expected.shape
    for channel, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(channel, wanted, rtol=0, atol=TOLERANCE * np.ptp(wanted))


def test_what_is_kept_for_the_way_back_leads_to_nnunetv2s_mask(recorded: tuple[NpzFile, Volume, Recipe]) -> None:
    """The slow way back, in double: every logit on the crop's grid, then the label, then the whole grid."""
    record, volume, recipe = recorded
    prepared = prepare(volume, recipe)
    logits = torch.from_numpy(record["logits"].astype(float) / 8)
    fine = resize(logits, prepared.box.shape, order=1, nearest=prepared.nearest_axis).numpy()
    if recipe.output == "softmax":
        best, labels = np.sort(fine, 0), fine.argmax(0)
        clear = best[-1] - best[-2] > LOGIT_ROUNDING
    else:
        clear = (np.abs(fine) > LOGIT_ROUNDING).all(0)
        labels = np.zeros(fine.shape[1:], int)
        for value, region in enumerate(fine, 1):
            labels[region > 0] = value
    assert clear.mean() > 0.9
    turned = np.zeros((2, *prepared.turned_shape), np.uint8)
    turned[(slice(None), *prepared.box.slices)] = labels, ~clear
    got, unclear = prepared.axes.inverse().apply(turned)
    assert np.array_equal(got[unclear == 0], record["mask"][unclear == 0])


def test_there_are_records() -> None:
    assert len(RECORDS) == 14
