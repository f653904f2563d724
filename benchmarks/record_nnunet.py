"""What nnunetv2 gives for small models of each kind, recorded for the tests.

Run it from the root of the checkout, with the environment of `benchmarks/nnunet.txt`::

    .venv-nnunet/bin/python -m benchmarks.record_nnunet

Each kind becomes a results folder in ``tests/data/nnunet/`` that nnunetv2's own trainer saved, with random weights.
Beside it stands ``expected.npz``: a window (B, C, D, H, W) with its logits by nnunetv2's network, fold by fold; a scan
(C, I, J, K) with its affine; and the masks (I, J, K) of nnunetv2's predictor, which adds windows up in fp16, and the
same in fp32.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nnunetv2.inference import predict_from_raw_data  # type: ignore[import-not-found]
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # type: ignore[import-not-found]
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import (  # type: ignore[import-not-found]
    nnUNetTrainerBN,
)

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "nnunet"
SHARED = OUT.parents[3] / "shared" / "data" / "nnunet" / "ct118"
RESAMPLING = {"order": 1, "order_z": 0, "force_separate_z": None, "is_seg": False}
FOREGROUND = {"mean": 60.0, "std": 40.0, "percentile_00_5": -80.0, "percentile_99_5": 210.0}


def architecture(name: str, **arguments: Any) -> dict[str, Any]:
    """The network in the plans; `arguments` over the usual ones."""
    stages = len(arguments["features_per_stage"])
    given = {
        "n_stages": stages,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": given | arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(**changes: Any) -> dict[str, Any]:
    """A configuration of the plans; `changes` over the usual one."""
    return {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 12],
        "spacing": [2.0, 1.5, 1.5],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": RESAMPLING | {"order": 3},
        "resampling_fn_seg_kwargs": RESAMPLING | {"is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": RESAMPLING,
        "batch_dice": False,
    } | changes


def plans(configurations: dict[str, Any], reader: str, transpose: list[int], channels: int) -> dict[str, Any]:
    """plans.json."""
    return {
        "dataset_name": "Dataset901_Small",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.5, 1.5],
        "original_median_shape_after_transp": [20, 24, 24],
        "image_reader_writer": reader,
        "transpose_forward": transpose,
        "transpose_backward": [int(axis) for axis in np.argsort(transpose)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): FOREGROUND for channel in range(channels)},
    }


def dataset(channel_names: list[str], labels: dict[str, Any], **more: Any) -> dict[str, Any]:
    """dataset.json."""
    named = {str(number): name for number, name in enumerate(channel_names)}
    return {"channel_names": named, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz", **more}


#: Plans from before the `architecture` key.
OLDER = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 3,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "num_pool_per_axis": [1, 2, 2],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "unet_max_num_features": 5,
}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": 3, "ignore": 4}
PLAIN = architecture(
    "PlainConvUNet", features_per_stage=[4, 5, 6], n_conv_per_stage=[1, 2, 3], n_conv_per_stage_decoder=[2, 1]
)
RESIDUAL = architecture(
    "ResidualEncoderUNet",
    features_per_stage=[4, 4, 6],
    strides=[[1, 1, 1], [1, 2, 2], [2, 2, 1]],
    n_blocks_per_stage=[1, 2, 2],
    n_conv_per_stage_decoder=[1, 1],
    norm_op_kwargs={"eps": 1e-3, "affine": True},
)
BATCH = architecture(
    "PlainConvUNet",
    features_per_stage=[4, 5],
    n_conv_per_stage=[2, 2],
    n_conv_per_stage_decoder=[1],
    conv_bias=False,
    nonlin_kwargs={"negative_slope": 0.2},
)

#: Kind: plans, configuration, dataset, trainer, folds.
KINDS: dict[str, tuple[dict[str, Any], str, dict[str, Any], type[nnUNetTrainer], tuple[int, ...]]] = {
    "plain": (
        plans({"3d_fullres": configuration(architecture=PLAIN)}, "NibabelIOWithReorient", [0, 1, 2], 1),
        "3d_fullres",
        dataset(["CT"], {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}),
        nnUNetTrainer,
        (0,),
    ),
    "residual": (
        plans(
            {
                "3d_fullres": configuration(
                    architecture=RESIDUAL,
                    spacing=[1.5, 2.0, 1.5],
                    normalization_schemes=["ZScoreNormalization", "RescaleTo01Normalization"],
                    use_mask_for_norm=[True, False],
                )
            },
            "SimpleITKIO",
            [1, 0, 2],
            2,
        ),
        "3d_fullres",
        dataset(["T1", "FLAIR"], {"background": 0, "lesion": 1}),
        nnUNetTrainer,
        (2,),
    ),
    "regions": (
        plans(
            {
                "3d_fullres": configuration(
                    **OLDER,
                    spacing=[4.0, 1.0, 1.0],
                    normalization_schemes=["NoNormalization"],
                    use_mask_for_norm=[False],
                ),
                "3d_fullres_large": {"inherits_from": "3d_fullres", "patch_size": [6, 20, 16]},
            },
            "NibabelIOWithReorient",
            [2, 0, 1],
            1,
        ),
        "3d_fullres_large",
        dataset(["noNorm"], REGIONS, regions_class_order=[1, 3, 2]),
        nnUNetTrainer,
        (0, 1),
    ),
    "batch": (
        plans({"3d_fullres": configuration(architecture=BATCH)}, "NibabelIO", [0, 1, 2], 1),
        "3d_fullres",
        dataset(["CT"], {"background": 0, "bone": 1}),
        nnUNetTrainerBN,
        (0,),
    ),
}


def randomise(network: torch.nn.Module, seed: int) -> None:
    """Weights of which none is 0 or 1: a layer left out, or two taken for each other, changes the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
            elif value.is_floating_point():
                fan = max(1, value[0].numel())
                value.normal_(0.0, (2.0 / fan) ** 0.5 if value.ndim > 1 else 0.3, generator=generator)
                if name.endswith("norm.weight"):
                    value.add_(1.0)


def balance(network: Any, window: torch.Tensor) -> None:
    """Set the last bias so that each class wins somewhere."""
    with torch.no_grad():
        network.eval()
        network.decoder.seg_layers[-1].bias -= network(window)[0].mean((0, 2, 3, 4))


def train(kind: str, folder: Path, work: Path) -> None:
    """Results as a training leaves them, without the training."""
    plan, name, data, trainer_class, folds = KINDS[kind]
    cases = work / "nnUNet_preprocessed" / "Dataset901_Small" / "x"
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.b2nd").touch()  # the trainer looks which kind of files there are
    for fold in folds:
        given = json.loads(json.dumps(plan)) | {"continue_training": False}
        trainer = trainer_class(given, name, fold, data, device=torch.device("cpu"))
        trainer.initialize()
        randomise(trainer.network, seed=fold)
        patch = trainer.configuration_manager.patch_size
        noise = torch.randn(1, trainer.num_input_channels, *patch, generator=torch.Generator().manual_seed(fold))
        balance(trainer.network, noise)
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        trainer.inference_allowed_mirroring_axes = (0, 2) if kind == "plain" else None
        trainer.logger.log("train_losses", np.float32(-0.5), 0)
        trainer.logger.log("mean_fg_dice", np.float64(0.7), 0)
        (folder / f"fold_{fold}").mkdir(parents=True)
        trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
    (folder / "plans.json").write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def scan(channels: int) -> tuple[Any, Any]:
    """Smooth blobs with an empty margin, (C, I, J, K), and an affine that is neither RAS nor isotropic."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.randn(1, channels, 5, 6, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(22, 26, 14), mode="trilinear")[0]
    array = np.zeros((channels, 26, 30, 17), np.int16)
    array[:, 3:25, 2:28, 1:15] = np.round(fine.numpy() * 90 + 60)
    affine = np.array([[-1.2, 0, 0, 10], [0, -1.3, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
    return array, affine


def record(kind: str, folder: Path) -> None:
    """Write expected.npz into a results folder."""
    folds = KINDS[kind][4]
    # nnU-Net finds a trainer by importing all of them, some of which need a torchvision that fits torch.
    predict_from_raw_data.recursive_find_trainer_class_by_name = lambda _: KINDS[kind][3]
    predictor = predict_from_raw_data.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    channels = len(predictor.dataset_json["channel_names"])
    generator = torch.Generator().manual_seed(3)
    window = torch.randn(1, channels, *predictor.configuration_manager.patch_size, generator=generator)
    expected: dict[str, Any] = {"window": window.numpy()}
    network = predictor.network.eval()
    for fold, parameters in zip(folds, predictor.list_of_parameters, strict=True):
        network.load_state_dict(parameters)
        with torch.inference_mode():
            expected[f"logits_{fold}"] = network(window).numpy()
    array, affine = scan(channels)
    with tempfile.TemporaryDirectory() as temporary:
        files = []
        for number, channel in enumerate(array):
            files.append(f"{temporary}/x_{number:04}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(channel, affine), files[-1])
        data, properties = predictor.plans_manager.image_reader_writer_class().read_images(files)
        for name, dtype in (("mask", torch.float16), ("mask_fp32", torch.float32)):
            torch.half = dtype  # what nnU-Net adds windows up in
            predictor.predict_single_npy_array(data, properties, None, f"{temporary}/{name}", False)
            expected[name] = np.asanyarray(nibabel.load(f"{temporary}/{name}.nii.gz").dataobj).astype(np.uint8)
    mask = expected["mask"]
    np.savez_compressed(folder / "expected.npz", **expected, scan=array, affine=affine)
    sizes = [path.stat().st_size for path in folder.rglob("*.*")]
    print(kind, "mask:", np.bincount(mask.ravel()).tolist(), "bytes:", sum(sizes), "largest:", max(sizes))


def record_ct118(folder: Path) -> None:
    """Logits of one column of voxels of a window that anyone can make again: 118 classes are too many for more."""
    predictor = predict_from_raw_data.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    window = np.random.default_rng(0).standard_normal((1, 1, 32, 32, 16), dtype=np.float32)
    with torch.inference_mode():
        logits = predictor.network.eval()(torch.from_numpy(window)).numpy()
    np.savez_compressed(OUT / "ct118.npz", logits=logits[0, :, 13, 20])


def main() -> None:
    """Every kind, and ct118 where the shared data are."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = str(Path(work) / variable)
        for kind in KINDS:
            shutil.rmtree(OUT / kind, ignore_errors=True)  # other recordings lie beside these
            train(kind, OUT / kind, Path(work))
            record(kind, OUT / kind)
    if SHARED.exists():
        record_ct118(SHARED)


if __name__ == "__main__":
    main()
