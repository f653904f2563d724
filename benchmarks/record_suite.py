"""Models of each kind that nnunetv2 trains, and its predictions from image file to mask file, recorded for the tests.

Run it from the root of the checkout, with the environment of `benchmarks/nnunet.txt`::

    .venv-nnunet/bin/python -m benchmarks.record_suite [-o FOLDER]

Each kind becomes ``tests/data/nnunet/suite/<kind>.zip``: ``results/`` as nnunetv2's own trainer saves them (for a
cascade those of both stages), the scan in ``images/``, and the masks of nnunetv2's predictor: ``mask.nii.gz`` as it
comes, and ``mask_fp32.nii.gz`` where it adds windows up in fp32 instead of fp16; ``stage1*.nii.gz`` is what a cascade's
second stage is given. The networks are trained for a few seconds, so that their outputs are as decided as those of real
models: random weights would give noise, in which many voxels have two classes that are nearly the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nnunetv2.inference import predict_from_raw_data  # type: ignore[import-not-found]
from nnunetv2.inference.sliding_window_prediction import compute_gaussian  # type: ignore[import-not-found]
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # type: ignore[import-not-found]
    DefaultPreprocessor,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # type: ignore[import-not-found]
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (  # type: ignore[import-not-found]
    nnUNetTrainerNoMirroring,
)
from nnunetv2.utilities.label_handling.label_handling import (  # type: ignore[import-not-found]
    convert_labelmap_to_one_hot,
)

from benchmarks.record_nnunet import OUT, PLAIN, RESIDUAL, architecture, configuration, dataset, plans

SMALL = architecture("PlainConvUNet", features_per_stage=[4, 5], n_conv_per_stage=[1, 1], n_conv_per_stage_decoder=[1])
FLAT = architecture(
    "PlainConvUNet",
    features_per_stage=[4, 5],
    kernel_sizes=[[1, 3, 3], [3, 3, 3]],
    strides=[[1, 1, 1], [1, 2, 2]],
    n_conv_per_stage=[2, 1],
    n_conv_per_stage_decoder=[1],
)
ORGANS = {"background": 0, "liver": 1, "spleen": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": 3, "ignore": 4}
LOWRES, CASCADE = "3d_lowres", "3d_cascade_fullres"
STEPS = 250


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A model, and the scan that it segments.

    Attributes
    ----------
    shape, spacing_mm, axes, turn
        Of the file, along i, j, k: where these axes point, before they are turned by so many degrees about x and z.
    target_mm
        The model's spacing, along its own axes; of a cascade's second stage.
    border
        Voxels of 0 before and behind the content, and holes of 0 in it.
    mirroring
        Axes; None is what nnU-Net's trainer chooses.
    """

    network: dict[str, Any] = field(default_factory=lambda: SMALL)
    patch: tuple[int, int, int] = (8, 16, 12)
    shape: tuple[int, int, int] = (26, 30, 17)
    spacing_mm: tuple[float, float, float] = (1.2, 1.3, 2.5)
    axes: str = "RAS"
    turn: float = 0.0
    target_mm: tuple[float, float, float] = (2.0, 1.5, 1.5)
    border: tuple[int, int] = (0, 0)
    reader: str = "NibabelIOWithReorient"
    transpose: tuple[int, int, int] = (0, 1, 2)
    schemes: tuple[str, ...] = ("CTNormalization",)
    masked: bool = False
    labels: dict[str, Any] = field(default_factory=lambda: ORGANS)
    trainer: type[nnUNetTrainer] = nnUNetTrainer
    folds: tuple[int, ...] = (0,)
    mirroring: tuple[int, ...] | None = (0,)
    configuration: str = "3d_fullres"


ISOTROPIC: dict[str, Any] = {"shape": (24, 22, 20), "spacing_mm": (1.1, 1.2, 1.0)}
THICK: dict[str, Any] = {"shape": (30, 28, 9), "spacing_mm": (0.8, 0.9, 4.0)}
KINDS = {
    "plain": Kind(network=PLAIN, axes="LPS", turn=17, labels={**ORGANS, "ignore": 3}),
    "residual": Kind(
        network=RESIDUAL,
        axes="LPS",
        turn=17,
        reader="SimpleITKIO",
        transpose=(1, 0, 2),
        target_mm=(1.5, 2.0, 1.5),
        schemes=("ZScoreNormalization", "RescaleTo01Normalization"),
        mirroring=(0, 1, 2),
    ),
    "thick_scan": Kind(
        **THICK, network=FLAT, patch=(6, 16, 20), target_mm=(2.5, 1.1, 1.0), reader="NibabelIO", axes="PIR"
    ),
    "thick_model": Kind(**ISOTROPIC, network=FLAT, patch=(4, 16, 12), target_mm=(4.0, 1.3, 1.2), mirroring=(2,)),
    "folds": Kind(folds=(0, 1, 2), schemes=("ZScoreNormalization",), mirroring=None),
    "regions": Kind(labels=REGIONS, folds=(0, 3), transpose=(2, 0, 1), target_mm=(1.5, 2.0, 1.5)),
    "no_mirroring": Kind(trainer=nnUNetTrainerNoMirroring, mirroring=None, axes="LAS"),
    "cropped_ct": Kind(border=(3, 2), reader="SimpleITKIO", target_mm=(2.5, 1.3, 1.2)),
    "cropped_mr": Kind(
        border=(2, 4),
        schemes=("ZScoreNormalization", "ZScoreNormalization"),
        masked=True,
        reader="SimpleITKIOWithReorient",
        axes="SLP",
        turn=11,
    ),
    "smaller_than_window": Kind(shape=(9, 30, 6), patch=(16, 32, 12)),
    "lowres": Kind(configuration=LOWRES, target_mm=(3.1, 2.3, 2.2)),
    "cascade": Kind(configuration=CASCADE, border=(2, 1), axes="LPS", target_mm=(1.7, 1.0, 1.6), mirroring=(1,)),
    "cascade_of_regions": Kind(
        **THICK,
        configuration=CASCADE,
        network=FLAT,
        patch=(6, 16, 20),
        target_mm=(2.5, 0.7, 1.1),
        labels=REGIONS,
        reader="SimpleITKIO",
        border=(1, 2),
        schemes=("ZScoreNormalization",),
        masked=True,
        transpose=(0, 2, 1),
        folds=(0, 1),
    ),
}


def plans_of(kind: Kind) -> dict[str, Any]:
    """plans.json of a kind; of a cascade, with both stages."""
    full = configuration(
        architecture=kind.network,
        patch_size=list(kind.patch),
        spacing=list(kind.target_mm),
        normalization_schemes=list(kind.schemes),
        use_mask_for_norm=[kind.masked] * len(kind.schemes),
    )
    configurations = {"3d_fullres": full}
    if kind.configuration != "3d_fullres":
        low = {"spacing": kind.target_mm} if kind.configuration == LOWRES else {"spacing": [3.1, 2.3, 2.2]}
        configurations[LOWRES] = {**full, **low, "next_stage": CASCADE}
        configurations[CASCADE] = {"inherits_from": "3d_fullres", "previous_stage": LOWRES}
    return plans(configurations, kind.reader, list(kind.transpose), len(kind.schemes))


def affine_of(kind: Kind) -> Any:
    """Affine to RAS+ of a kind's file."""
    points = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    c, s = np.cos(np.radians(kind.turn)), np.sin(np.radians(kind.turn))
    about_x, about_z = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.array([points[letter] for letter in kind.axes]).T * kind.spacing_mm
    affine[:3, 3] = (-11.0, 7.0, 23.0)
    return affine


def write_scan(kind: Kind, folder: Path, seed: int) -> list[str]:
    """Smooth blobs, one file a channel, and their paths."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, len(kind.schemes), *(max(3, size // 5) for size in kind.shape), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=kind.shape, mode="trilinear")[0].numpy()
    array = np.round(smooth * 18).astype(np.int16) * 5 + 62  # steps of 5: a file that compresses well
    first, last = kind.border
    if first:
        array[:, smooth[0] > 1.2] = 0
        for axis, size in enumerate(kind.shape, 1):
            line = np.moveaxis(array, axis, 0)
            line[:first], line[size - last :] = 0, 0
    affine, files = affine_of(kind), []
    folder.mkdir(parents=True)
    for number, channel in enumerate(array):
        image = nibabel.Nifti1Image(channel, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        files.append(str(folder / f"x_{number:04}.nii.gz"))
        nibabel.save(image, files[-1])
    return files


def targets_of(data_CDHW: Any, previous: Any, heads: int, regions: bool) -> Any:
    """What the network learns: bands of the scan's values some voxels away, and of the first stage's labels.

    The way to those voxels is another along each axis, so that a network sees how a scan is turned.
    """
    values = np.roll(data_CDHW[0], (0, 1, -2), (0, 1, 2)) - (data_CDHW[-1] if len(data_CDHW) > 1 else 0)
    edges = np.quantile(values, np.linspace(0, 1, heads + 1 + regions)[1:-1])
    bands = np.digitize(values, edges)
    if previous is not None:
        bands = np.where(np.roll(previous, 1, 1) > 0, (bands + 1) % (bands.max() + 1), bands)
    if regions:
        return np.stack([bands > region for region in range(heads)]).astype(np.float32)
    return bands.astype(np.int64)


def fit(network: Any, data_CDHW: Any, targets: Any, patch: list[int], seed: int) -> None:
    """Train for `STEPS` steps on windows of one scan; weights are rounded to half precision, for smaller files."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pads = [max(0, size - have) for size, have in zip(patch, data_CDHW.shape[1:], strict=True)]
    widths = [(0, pad) for pad in pads]
    data = torch.from_numpy(np.pad(data_CDHW, [(0, 0), *widths]).astype(np.float32))
    target = torch.from_numpy(np.pad(targets, [(0, 0)] * (targets.ndim - 3) + widths))
    optimiser = torch.optim.Adam(network.parameters(), 2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-2, STEPS)
    regions = target.ndim == 4
    loss_of = torch.nn.BCEWithLogitsLoss() if regions else torch.nn.CrossEntropyLoss()
    network.train()
    for _ in range(STEPS):
        corner = [rng.integers(0, have - size + 1) for have, size in zip(data.shape[1:], patch, strict=True)]
        place = tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))
        logits = network(data[(slice(None), *place)][None])
        loss = loss_of(logits, target[(slice(None), *place) if regions else place][None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(value.half().float())


def train(kind: Kind, name: str, files: list[str], previous: str | None, folder: Path, work: Path) -> None:
    """Results of one configuration, saved by nnunetv2's trainer; `previous` is the mask of the stage before."""
    plan = plans_of(kind)
    data = dataset([f"channel {n}" for n in range(len(kind.schemes))], kind.labels)
    if kind.labels is REGIONS:
        data["regions_class_order"] = [1, 3, 2]
    cases = work / "nnUNet_preprocessed" / "Dataset901_Small" / "x"
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.b2nd").touch()  # the trainer looks which kind of files there are
    for fold in kind.folds:
        trainer = kind.trainer(
            json.loads(json.dumps(plan)) | {"continue_training": False}, name, fold, data, device=torch.device("cpu")
        )
        trainer.initialize()
        trainer.set_deep_supervision_enabled(False)
        manager, label_manager = trainer.configuration_manager, trainer.label_manager
        image, seg, _ = DefaultPreprocessor(verbose=False).run_case(
            files, previous, trainer.plans_manager, manager, data
        )
        seen = image
        if previous is not None:
            seen = np.vstack((image, convert_labelmap_to_one_hot(seg[0], label_manager.foreground_labels, image.dtype)))
        heads, regions = label_manager.num_segmentation_heads, label_manager.has_regions
        targets = targets_of(image, None if previous is None else seg[0], heads, regions)
        fit(trainer.network, seen, targets, manager.patch_size, seed=fold)
        trainer.set_deep_supervision_enabled(True)
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if kind.mirroring is not None:
            trainer.inference_allowed_mirroring_axes = kind.mirroring
        (folder / f"fold_{fold}").mkdir(parents=True)
        trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
    (folder / "plans.json").write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def predict(kind: Kind, folder: Path, files: list[str], previous: Path | None, out: Path) -> None:
    """nnunetv2's own prediction, from files to ``out/x.nii.gz``."""
    # nnU-Net finds a trainer by importing all of them, some of which need a torchvision that fits torch.
    predict_from_raw_data.recursive_find_trainer_class_by_name = lambda _: kind.trainer
    out.mkdir()
    predictor = predict_from_raw_data.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), kind.folds)
    before = None if previous is None else str(previous)
    predictor.predict_from_files_sequential([files], [str(out / "x")], folder_with_segs_from_prev_stage=before)


def record(name: str, kind: Kind, out: Path, seed: int) -> None:
    """Train, predict, and put everything into one file."""
    with tempfile.TemporaryDirectory() as temporary:
        work, made = Path(temporary), Path(temporary) / "made"
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = str(work / variable)
        files = write_scan(kind, made / "images", seed)
        stages = [LOWRES, CASCADE] if kind.configuration == CASCADE else [kind.configuration]
        for half, suffix in ((torch.float16, ""), (torch.float32, "_fp32")):
            # What nnU-Net adds windows up in, and holds their weights in.
            torch.half = half
            predict_from_raw_data.compute_gaussian = lru_cache(partial(compute_gaussian, dtype=half))
            previous = None
            for stage in stages:
                results = made / "results" / f"{kind.trainer.__name__}__nnUNetPlans__{stage}"
                masks = work / f"{stage}_{half}"
                if not results.exists():
                    train(kind, stage, files, None if previous is None else str(previous / "x.nii.gz"), results, work)
                predict(kind, results, files, previous, masks)
                if previous is not None:
                    shutil.copy(previous / "x.nii.gz", made / f"stage1{suffix}.nii.gz")
                previous = masks
            shutil.copy(masks / "x.nii.gz", made / f"mask{suffix}.nii.gz")
        mask = np.asanyarray(nibabel.load(made / "mask.nii.gz").dataobj).astype(int)
        target = out / f"{name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
            for path in sorted(made.rglob("*")):
                archive.write(path, path.relative_to(made))
    print(f"{name}: voxels of each label {np.bincount(mask.ravel()).tolist()}, {target.stat().st_size} bytes")


def main() -> None:
    """Every kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=OUT / "suite")
    parser.add_argument("--scale", type=int, default=1, help="scans of so many times the size along each axis")
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed, (name, kind) in enumerate(KINDS.items()):
        if name in given.kinds:
            i, j, k = kind.shape
            scaled = replace(kind, shape=(given.scale * i, given.scale * j, given.scale * k))
            record(name, scaled, given.output, seed)


if __name__ == "__main__":
    main()
