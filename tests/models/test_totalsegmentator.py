"""The profile of TotalSegmentator against its own output (`benchmarks/record_totalsegmentator.py`)."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.lib.npyio import NpzFile

import volseg
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.models.nnunet import import_nnunet
from volseg.preprocess import prepare
from volseg.volume import Volume

RECORDED = Path(__file__).parents[1] / "data" / "totalsegmentator"
SCANS = sorted(RECORDED.glob("*.npz"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("imported") / "model"
    import_nnunet(RECORDED / "model", folder, "totalsegmentator")
    return load_model(folder)


@pytest.fixture(params=SCANS, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[NpzFile, Volume]:
    """What was recorded, and the scan as volseg reads its file."""
    record = np.load(request.param)
    image = nibabel.Nifti1Image(record["array"], record["affine"])
    if json.loads(str(record["about"]))["kind"] == "scaled":
        image.header.set_slope_inter(0.5, -20)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    return record, volseg.load(tmp_path / "scan.nii.gz")


def test_the_network_sees_the_same_values(model: Model, recorded: tuple[NpzFile, Volume]) -> None:
    """Integers, then normalised: one that is cut to another is 1 / 40 off."""
    record, volume = recorded
    tensor = prepare(volume, model.recipe).tensor_CDHW.numpy()
    assert tensor.shape == record["prepared"].shape
    np.testing.assert_allclose(tensor, record["prepared"], rtol=0, atol=1e-6)


def test_the_mask_is_the_same(model: Model, recorded: tuple[NpzFile, Volume]) -> None:
    record, volume = recorded
    mask = Segmenter(model, Options(engine="torch", precision="fp32")).segment(volume).mask.array
    assert mask.shape == record["array"].shape
    assert len(np.unique(record["mask"])) > 2
    # Rounding decides on a few voxels of the model's grid, each of which is several of the scan's; in fp16, on more,
    # since the logits of a network with random weights lie near each other.
    assert (mask == record["mask_fp32"]).mean() > 0.998
    assert (mask == record["mask"]).mean() > 0.97


def test_what_the_recipe_says(model: Model) -> None:
    recipe = model.recipe
    assert (recipe.resampling.scheme, recipe.resampling.image_order, recipe.spacing_mm) == ("image", 1, (3, 3, 3))
    assert (recipe.orientation, recipe.crop, recipe.tile_step) == ("SAR", "nonzero", 0.8)
    assert (recipe.mirroring.axes, recipe.mirroring.use) == ((0, 1, 2), False)


def test_there_are_records() -> None:
    assert len(SCANS) == 11
