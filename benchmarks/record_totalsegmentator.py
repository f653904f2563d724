"""What TotalSegmentator gives for a small model, recorded for the tests.

Run it from the root of the checkout, with the environment of `benchmarks/totalsegmentator.txt`::

    .venv-totalseg/bin/python -m benchmarks.record_totalsegmentator

``tests/data/totalsegmentator/model`` becomes a results folder of nnU-Net with random weights, which TotalSegmentator
takes for those of its task ``total`` at 3 mm. Beside it stands one file a scan: its voxels (I, J, K) and affine, what
TotalSegmentator gave the network (C, D, H, W), and its mask (I, J, K) where windows are added up in fp16, as nnunetv2
does, and in fp32.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # type: ignore[import-not-found]

from benchmarks.inference.totalsegmentator_case import offline
from benchmarks.record_nnunet import architecture, balance, configuration, dataset, plans, randomise

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "totalsegmentator"
NETWORK = architecture(
    "PlainConvUNet", features_per_stage=[4, 6], n_conv_per_stage=[1, 1], n_conv_per_stage_decoder=[1]
)
PLANS = plans(
    {"3d_fullres": configuration(architecture=NETWORK, spacing=[3.0, 3.0, 3.0], patch_size=[10, 12, 8])},
    "NibabelIOWithReorient",
    [0, 1, 2],
    1,
)
DATASET = dataset(["CT"], {"background": 0, "liver": 1, "spleen": 2, "aorta": 3})


@dataclass(frozen=True)
class Case:
    """A scan: its sizes, the direction in which each index grows (and the angle by which all are turned), its spacing.

    Attributes
    ----------
    kind
        ``int16``; ``float32``, whose values aren't whole; or ``scaled``: int16 in a file that halves them.
    margin
        Voxels on each side that are 0.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str = "RAS"
    degrees: float = 0.0
    kind: str = "int16"
    margin: int = 0


CASES = {
    "isotropic": Case((27, 26, 21), (1.5, 1.5, 1.5)),
    "anisotropic": Case((31, 36, 8), (0.9765625, 0.9765625, 5.0)),
    "oblique": Case((22, 25, 19), (1.3, 2.0, 1.7), "RAS", 14.0),
    "stored_lps": Case((23, 20, 27), (2.0, 1.9, 1.1), "LPS"),
    "stored_pir": Case((21, 24, 18), (1.7, 1.2, 2.6), "PIR"),
    "coarse": Case((9, 11, 8), (5.5, 4.0, 6.5), "LAS"),
    "float": Case((17, 14, 18), (1.6, 2.2, 1.9), "RPS", 0.0, "float32"),
    "scaled": Case((21, 18, 22), (1.9, 2.3, 1.4), "LPS", 0.0, "scaled"),
    "same_spacing": Case((13, 12, 11), (3.0, 3.0, 3.0), "LPS", 0.0, "float32"),
    "empty_margin": Case((34, 30, 28), (1.8, 1.6, 2.0), "LPS", 0.0, "int16", 5),
    "thin": Case((24, 27, 2), (1.5, 1.7, 1.5)),
}


def affine_of(case: Case) -> Any:
    """(4, 4) to RAS+ mm."""
    directions = np.zeros((3, 3))
    for axis, letter in enumerate(case.axes):
        directions["RLAPSI".index(letter) // 2, axis] = 1 if letter in "RAS" else -1
    angle = np.radians(case.degrees)
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ directions * case.spacing_mm
    affine[:3, 3] = (-21.0, 34.0, 17.0)
    return affine


def scan_of(case: Case, seed: int) -> nibabel.Nifti1Image:
    """Smooth blobs, and a region of one value."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, 5, 6, 4, generator=generator)
    values = torch.nn.functional.interpolate(coarse, size=case.shape, mode="trilinear")[0, 0].numpy() * 90 + 60
    values[: case.shape[0] // 3, : case.shape[1] // 3] = -1000
    values = values.astype(np.float32) if case.kind == "float32" else np.round(values).astype(np.int16)
    if case.margin:
        inner = (slice(case.margin, -case.margin),) * 3
        values, whole = np.zeros_like(values), values
        values[inner] = whole[inner]
    image = nibabel.Nifti1Image(values, affine_of(case))
    if case.kind == "scaled":
        image.header.set_slope_inter(0.5, -20)
    return image


def train(folder: Path) -> None:
    """Results as a training leaves them, without the training."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = str(folder.parent / variable)
    cases = folder.parent / "nnUNet_preprocessed" / PLANS["dataset_name"] / "x"
    cases.mkdir(parents=True)
    (cases / "case.b2nd").touch()  # the trainer looks which kind of files there are
    given = json.loads(json.dumps(PLANS)) | {"continue_training": False}
    trainer = nnUNetTrainer(given, "3d_fullres", 0, DATASET, device=torch.device("cpu"))
    trainer.initialize()
    randomise(trainer.network, seed=3)
    patch = trainer.configuration_manager.patch_size
    balance(trainer.network, torch.randn(1, 1, *patch, generator=torch.Generator().manual_seed(0)))
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    (folder / "fold_0").mkdir(parents=True)
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    (folder / "plans.json").write_text(json.dumps(PLANS, indent=1) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(DATASET, indent=1) + "\n", encoding="utf-8")


def recorded(image: nibabel.Nifti1Image, folder: Path) -> Iterator[tuple[str, Any]]:
    """What TotalSegmentator makes of a scan, name by name."""
    from totalsegmentator import nnunet, python_api  # type: ignore[import-not-found]

    seen: list[Any] = []
    predict = nnunet.nnUNetPredictor.predict_logits_from_preprocessed_data

    def kept(predictor: Any, data: Any) -> Any:
        seen.append(data.numpy().copy())
        return predict(predictor, data)

    def in_this_process(predictor: Any, source: str, target: str, **_: Any) -> Any:
        return predictor.predict_from_files_sequential(source, target)

    nnunet.nnUNetPredictor.predict_logits_from_preprocessed_data = kept
    nnunet.nnUNetPredictor.predict_from_files = in_this_process  # pools of processes take minutes
    half = torch.half
    nibabel.save(image, folder / "scan.nii.gz")
    for name, dtype in (("mask", torch.float16), ("mask_fp32", torch.float32)):
        torch.half = dtype  # what nnU-Net adds windows up in
        written = folder / f"{name}.nii.gz"
        python_api.totalsegmentator(folder / "scan.nii.gz", written, ml=True, fast=True, device="cpu", quiet=True)
        yield name, np.asarray(nibabel.load(written).dataobj).astype(np.uint8)
    torch.half = half
    nnunet.nnUNetPredictor.predict_logits_from_preprocessed_data = predict
    yield "prepared", seen[0]


def main() -> None:
    """Train the model and write one file a scan."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    versions = {name: version(name) for name in ("TotalSegmentator", "nnunetv2", "torch", "scipy", "numpy", "nibabel")}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        train(work / "trained")
        shutil.copytree(work / "trained", OUT / "model")
        os.environ |= offline(work, OUT / "model")
        for seed, (name, case) in enumerate(CASES.items()):
            image = scan_of(case, seed)
            arrays = dict(recorded(image, work))
            raw = {"array": np.asanyarray(image.dataobj), "affine": image.affine}
            about = json.dumps({"kind": case.kind, "versions": versions})
            np.savez_compressed(OUT / f"{name}.npz", about=about, **raw, **arrays)
            counts = np.bincount(arrays["mask"].ravel()).tolist()
            print(f"{name}: {image.shape} to {arrays['prepared'].shape[1:]}, voxels of labels {counts}")
    sizes = [path.stat().st_size for path in OUT.rglob("*.*")]
    print(f"{sum(sizes)} bytes, the largest file {max(sizes)}")


if __name__ == "__main__":
    main()
