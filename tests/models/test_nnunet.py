"""Imported nnU-Net models, against what nnunetv2 itself gave (`benchmarks/record_nnunet.py`)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import volseg
from tests.helpers.tiny import write_nifti
from volseg.errors import ModelError
from volseg.models.folder import ModelFolder
from volseg.models.nnunet import import_nnunet
from volseg.network.unet import UNet
from volseg.volume import Volume

RECORDED = Path(__file__).parents[1] / "data" / "nnunet"
KINDS = ("plain", "residual", "regions", "batch")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFolder]:
    folder = tmp_path_factory.mktemp("imported")
    return {kind: import_nnunet(RECORDED / kind, folder / kind) for kind in KINDS}


def logits(model: ModelFolder, fold: str, window: Any) -> Any:
    network = UNet.from_recipe(model.manifest.recipe).eval()
    network.load_state_dict(model.weights(fold))
    with torch.inference_mode():
        return network(torch.from_numpy(window)).numpy()


def scan_of(content: Any, folder: Path) -> Volume:
    """The recorded scan as volseg reads it, its channels from one file each."""
    read = [
        volseg.load(write_nifti(folder / f"{number}.nii.gz", channel, content["affine"]))
        for number, channel in enumerate(content["scan"])
    ]
    return Volume(np.concatenate([volume.array_CIJK for volume in read]), read[0].geometry, read[0].source)


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_give_nnunets_logits(kind: str, imported: dict[str, ModelFolder]) -> None:
    expected = np.load(RECORDED / kind / "expected.npz")
    folds = sorted(name.removeprefix("logits_") for name in expected.files if name.startswith("logits_"))
    assert sorted(imported[kind].manifest.weights) == folds
    for fold in folds:
        wanted = expected[f"logits_{fold}"]
        np.testing.assert_allclose(
            logits(imported[kind], fold, expected["window"]), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
        )


def test_a_real_sized_network_gives_nnunets_logits(shared_data: Path, tmp_path: Path) -> None:
    model = import_nnunet(shared_data / "nnunet" / "ct118", tmp_path / "m")
    window = np.random.default_rng(0).standard_normal((1, 1, 32, 32, 16), dtype=np.float32)
    wanted = np.load(RECORDED / "ct118.npz")["logits"]
    assert wanted.shape == (118, 16)
    got = logits(model, "0", window)[0, :, 13, 20]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert [label.name for label in model.manifest.recipe.labels] == [f"c{number}" for number in range(1, 118)]
    assert model.manifest.recipe.mirroring.use is False


@pytest.mark.parametrize("kind", KINDS)
def test_the_masks_are_nnunets(kind: str, imported: dict[str, ModelFolder], tmp_path: Path) -> None:
    """From file to mask: axes, transposition, crop, normalisation, spacing, mirroring, folds, regions.

    nnU-Net adds windows up in fp16; where it does so in fp32, a voxel differs only where two classes are as near as
    rounding. The random weights have many voxels at which two are nearly the same.
    """
    expected = np.load(RECORDED / kind / "expected.npz")
    mask = volseg.load_model(imported[kind].path).predict(scan_of(expected, tmp_path)).array
    assert mask.shape == expected["mask"].shape
    assert (mask != expected["mask_fp32"]).sum() <= 2
    assert (mask == expected["mask"]).mean() > 0.99


def test_what_the_recipe_says(imported: dict[str, ModelFolder]) -> None:
    plain, residual, regions, batch = (imported[kind].manifest.recipe for kind in KINDS)
    # nnU-Net's arrays are (z, y, x) of RAS+, or of the file, permuted by transpose_forward: 0 1 2, 1 0 2, 2 0 1, 0 1 2.
    assert [recipe.orientation for recipe in (plain, residual, regions, batch)] == [
        "SAR",
        "stored-JKI",
        "RSA",
        "stored-KJI",
    ]
    assert (plain.window, plain.spacing_mm, plain.crop, plain.tile_step) == (
        (8, 16, 12),
        (2.0, 1.5, 1.5),
        "nonzero",
        0.5,
    )
    assert (plain.mirroring.axes, plain.mirroring.use) == ((0, 2), True)
    assert (batch.mirroring.axes, batch.mirroring.use) == ((), False)
    assert [(label.value, label.name) for label in plain.labels] == [(1, "liver"), (2, "spleen")]  # ignore is dropped
    assert (plain.output, plain.outputs) == ("softmax", 3)
    # The second configuration inherits all but its patch size.
    assert (regions.window, regions.spacing_mm, regions.output) == ((6, 20, 16), (4.0, 1.0, 1.0), "sigmoid")
    assert [(label.value, label.name, label.members) for label in regions.labels] == [
        (1, "whole", (1, 2, 3)),
        (3, "core", (2, 3)),
        (2, "spot", (3,)),
    ]
    assert [label.value for label in regions.label_table()] == [1, 2, 3]
    assert [(channel.name, channel.modalities) for channel in (*plain.channels, *residual.channels)] == [
        ("CT", ("CT",)),
        ("T1", ()),
        ("FLAIR", ()),
    ]
    assert [(intensity.scheme, intensity.use_mask) for intensity in residual.intensities] == [
        ("zscore", True),
        ("minmax", False),
    ]
    (fixed,) = plain.intensities
    assert (fixed.scheme, fixed.clip, fixed.mean, fixed.std) == ("fixed", (-80.0, 210.0), 60.0, 40.0)


def test_what_the_network_is(imported: dict[str, ModelFolder]) -> None:
    plain, residual, regions, batch = (imported[kind].manifest.recipe.network for kind in KINDS)
    # nnU-Net's [2, 1] counts from the lowest stage of the decoder.
    assert (plain.stage_convolutions, plain.stage_decoder_convolutions) == ((1, 2, 3), (1, 2))
    assert (residual.encoder, residual.epsilon, residual.stage_convolutions) == ("residual_blocks", 1e-3, (1, 2, 2))
    # Plans of the older kind: features double up to the largest.
    assert (regions.features, regions.kernels[0], regions.strides[1]) == ((3, 5, 5), (1, 3, 3), (1, 2, 2))
    assert (batch.normalisation, batch.bias, batch.slope) == ("batch", False, 0.2)


def test_what_is_not_known_is_not_claimed(imported: dict[str, ModelFolder]) -> None:
    for kind in KINDS:
        trained_on = imported[kind].manifest.trained_on
        assert (trained_on.cases, trained_on.spacing_mm, trained_on.extent_mm) == ((), None, None)
        card = (imported[kind].path / "CARD.md").read_text()
        for path in (RECORDED / kind).rglob("*.pth"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() in card
        assert "Dataset901_Small" in card
        assert str(RECORDED.parent) not in card
    assert imported["plain"].manifest.trained_on.intensity == ((-80.0, 210.0),)
    assert "| 0 | checkpoint_final.pth | 1 |" in (imported["plain"].path / "CARD.md").read_text()


def test_no_scan_is_skipped_for_ranges_that_are_not_known(imported: dict[str, ModelFolder], tmp_path: Path) -> None:
    expected = np.load(RECORDED / "plain" / "expected.npz")
    model = volseg.load_model(imported["plain"].path)
    assert model.mismatch("CT", scan_of(expected, tmp_path).geometry) is None
    found = model.mismatch("MR", scan_of(expected, tmp_path).geometry)
    assert found is not None
    assert found.code == "modality"


# What is refused, by name.

ARGUMENTS = ("configurations", "3d_fullres", "architecture", "arch_kwargs")
FULL = ("configurations", "3d_fullres")


def copy_of(kind: str, folder: Path) -> Path:
    shutil.copytree(RECORDED / kind, folder / kind)
    return folder / kind


def change(path: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def put(keys: tuple[str, ...], value: Any) -> Callable[[Any], None]:
    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ("image_reader_writer",),
            "Tiff3DIO",
            "Tiff3DIO; volseg follows NibabelIOWithReorient, SimpleITKIOWithReorient, SimpleITKIO, NibabelIO",
        ),
        (("image_reader_writer",), "NaturalImage2DIO", "NaturalImage2DIO"),
        (("transpose_forward",), [0, 1, 1], "not an order of three axes"),
        (("dataset_name",), None, "dataset_name"),
        (("label_manager",), "MyLabels", "label_manager: .*MyLabels"),
        ((*FULL, "patch_size"), [16, 12], "3d_fullres is a 2D configuration"),
        ((*FULL, "previous_stage"), "3d_lowres", "second stage of a cascade"),
        ((*FULL, "inherits_from"), "3d_fullres", "no configuration '3d_fullres' that ends"),
        ((*FULL, "inherits_from"), "other", "no configuration 'other'"),
        ((*FULL, "preprocessor_name"), "MyPreprocessor", "preprocessor_name: .*MyPreprocessor"),
        ((*FULL, "normalization_schemes"), ["MyNormalization"], "MyNormalization"),
        ((*FULL, "normalization_schemes"), [], "0 normalization_schemes and 1 use_mask_for_norm for 1 channels"),
        ((*FULL, "resampling_fn_data"), "resample_torch_fornnunet", "resampling_fn_data: .*resample_torch_fornnunet"),
        ((*FULL, "resampling_fn_data_kwargs", "order"), 2, r"resampling_fn_data_kwargs\.order"),
        ((*FULL, "resampling_fn_probabilities_kwargs", "force_separate_z"), False, "force_separate_z False"),
        ((*FULL, "architecture", "network_class_name"), "a.b.Primus", "the network is a Primus"),
        ((*ARGUMENTS, "stem_channels"), 16, "stem_channels: .*16"),
        ((*ARGUMENTS, "nonlin_first"), True, "nonlin_first"),
        ((*ARGUMENTS, "attention"), True, "attention: no such key"),
        ((*ARGUMENTS, "conv_op"), "torch.nn.modules.conv.Conv2d", "conv_op: .*Conv2d"),
        ((*ARGUMENTS, "norm_op"), "torch.nn.LayerNorm", "norm_op torch.nn.LayerNorm"),
        ((*ARGUMENTS, "nonlin"), "torch.nn.GELU", "nonlin torch.nn.GELU"),
        ((*ARGUMENTS, "norm_op_kwargs"), {"track_running_stats": True}, "track_running_stats"),
        ((*ARGUMENTS, "kernel_sizes"), [[2, 3, 3]] * 3, "kernels must be odd"),
        ((*ARGUMENTS, "strides"), [[2, 2, 2]] * 3, "first stage's stride must be 1x1x1"),
        ((*ARGUMENTS, "features_per_stage"), [4, 5], "features"),
        ((*ARGUMENTS, "n_stages"), 10**9, "n_stages: .*1000000000"),
        ((*ARGUMENTS, "n_conv_per_stage"), None, "arch_kwargs lack n_conv_per_stage"),
        ((*FULL, "patch_size"), [10, 16, 12], "patch_size: size 10 x 16 x 12 can't be halved"),
        (("foreground_intensity_properties_per_channel", "0", "mean"), float("nan"), "0.mean: .*finite"),
        (
            (*ARGUMENTS, "n_conv_per_stage"),
            [1, 2, 2],
            r"holds the weight encoder\.stages\.2\.0\.convs\.2\.conv\.weight",
        ),
        ((*ARGUMENTS, "n_conv_per_stage"), [2, 2, 3], r"lacks weights .* such as encoder\.0\.blocks\.1\.0\.weight"),
        ((*ARGUMENTS, "features_per_stage"), [4, 5, 7], r"has shape \(6, 5, 3, 3, 3\), .* \(7, 5, 3, 3, 3\)"),
    ],
)
def test_plans_that_volseg_cannot_follow(keys: tuple[str, ...], value: Any, message: str, tmp_path: Path) -> None:
    folder = copy_of("plain", tmp_path)
    change(folder / "plans.json", put(keys, value))
    with pytest.raises(ModelError, match=message):
        import_nnunet(folder, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("kind", "keys", "value", "message"),
    [
        ("plain", ("labels",), {"background": 0, "a": 1, "b": 3}, r"values are \[1, 3\], not 1, 2, 3"),
        ("plain", ("labels",), {"background": 0}, "labels"),
        ("plain", ("channel_names",), {}, "channel_names"),
        ("plain", ("labels",), None, "labels"),
        ("regions", ("regions_class_order",), [1, 2], "regions_class_order has 2 values for 3 regions"),
        ("regions", ("regions_class_order",), None, "regions_class_order has 0 values for 3 regions"),
        ("regions", ("regions_class_order",), [1, 2, 2], "not different"),
        ("regions", ("regions_class_order",), [1, 2, 70000], "70000"),
    ],
)
def test_labels_that_volseg_cannot_follow(
    kind: str, keys: tuple[str, ...], value: Any, message: str, tmp_path: Path
) -> None:
    folder = copy_of(kind, tmp_path)
    change(folder / "dataset.json", put(keys, value))
    with pytest.raises(ModelError, match=message):
        import_nnunet(folder, tmp_path / "m")


def test_older_plans_without_a_key(tmp_path: Path) -> None:
    folder = copy_of("regions", tmp_path)
    change(folder / "plans.json", lambda plans: plans["configurations"]["3d_fullres"].pop("conv_kernel_sizes"))
    with pytest.raises(ModelError, match="3d_fullres_large: lacks 'conv_kernel_sizes'"):
        import_nnunet(folder, tmp_path / "m")


def test_older_names_of_keys(tmp_path: Path) -> None:
    folder = copy_of("plain", tmp_path)
    older = "foreground_intensity_properties_by_modality"
    change(
        folder / "plans.json",
        lambda plans: plans.update({older: plans.pop("foreground_intensity_properties_per_channel")}),
    )
    change(folder / "dataset.json", lambda dataset: dataset.update(modality=dataset.pop("channel_names")))
    (intensity,) = import_nnunet(folder, tmp_path / "m").manifest.recipe.intensities
    assert intensity.clip == (-80.0, 210.0)


def test_files_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    folder = copy_of("plain", tmp_path)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(ModelError, match=r"dataset\.json: not JSON"):
        import_nnunet(folder, tmp_path / "m")
    (folder / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"plans\.json: can't be read; is its folder the results of nnU-Net v2\?"):
        import_nnunet(folder, tmp_path / "m")


def test_which_checkpoints_are_taken(tmp_path: Path) -> None:
    """As nnU-Net: fold_all only where there is no other; the best where there is no final one."""
    folder = copy_of("plain", tmp_path)
    final = folder / "fold_0" / "checkpoint_final.pth"
    shutil.copytree(folder / "fold_0", folder / "fold_all")
    (folder / "fold_1").mkdir()
    shutil.copy(final, folder / "fold_1" / "checkpoint_best.pth")
    (folder / "fold_2").mkdir()
    model = import_nnunet(folder, tmp_path / "m")
    assert list(model.manifest.weights) == ["0", "1"]
    assert "| 1 | checkpoint_best.pth |" in (model.path / "CARD.md").read_text()
    for fold in ("fold_0", "fold_1"):
        shutil.rmtree(folder / fold)
    assert list(import_nnunet(folder, tmp_path / "all").manifest.weights) == ["all"]
    shutil.rmtree(folder / "fold_all")
    with pytest.raises(ModelError, match=r"no fold_\* holds a checkpoint_final\.pth or a checkpoint_best\.pth"):
        import_nnunet(folder, tmp_path / "none")


def test_folds_of_different_trainings(tmp_path: Path) -> None:
    folder = copy_of("plain", tmp_path)
    shutil.copytree(RECORDED / "batch" / "fold_0", folder / "fold_1")
    with pytest.raises(ModelError, match=r"the folds differ in their trainer: .*nnUNetTrainerBN"):
        import_nnunet(folder, tmp_path / "m")


@pytest.mark.parametrize(("kind", "orientation"), [("plain", "SAR"), ("residual", "ASR"), ("regions", "RSA")])
def test_the_profile_of_totalsegmentator(kind: str, orientation: str, tmp_path: Path) -> None:
    """Turned to RAS+ before nnU-Net reads it as (z, y, x), permuted by transpose_forward; linear, steps of 0.8."""
    model = import_nnunet(RECORDED / kind, tmp_path / "m", "totalsegmentator")
    recipe = model.manifest.recipe
    assert recipe.orientation == orientation
    assert (recipe.resampling.image_order, recipe.resampling.separate_axis) == (1, "never")
    assert (recipe.tile_step, recipe.mirroring.use) == (0.8, False)
    assert recipe.mirroring.axes == ((0, 2) if kind == "plain" else ())
    assert "profile totalsegmentator" in (model.path / "CARD.md").read_text()
