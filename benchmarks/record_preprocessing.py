"""What nnunetv2's own preprocessing and export do to small made scans, recorded for the tests.

Run it from the root of the checkout, with the environment of `benchmarks/nnunet.txt`::

    .venv-nnunet/bin/python -m benchmarks.record_preprocessing

Each case goes through nnunetv2's reader, preprocessor, export and writer, from one NIfTI file to another. A record
holds the scan (int16, [c, i, j, k]) with its affine, nnunetv2's network input (float32), made logits (int8, eighths),
and the mask that nnunetv2 makes of these ([i, j, k]).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nnunetv2.inference.export_prediction import (  # type: ignore[import-not-found]
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # type: ignore[import-not-found]
    DefaultPreprocessor,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # type: ignore[import-not-found]

FOLDER = Path("tests/data/nnunet/preprocessing")
#: Of CTNormalization, for every channel.
FOREGROUND = {"mean": -50.4, "std": 303.4, "percentile_00_5": -1004.0, "percentile_99_5": 588.0}
HEADS = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scan, and the model that it is prepared for.

    Attributes
    ----------
    shape, spacing_mm, orientation
        Of the file, along i, j, k; `rotation` turns it about its third axis, in degrees.
    target_mm
        The model's spacing, along its own axes.
    border
        Voxels of 0 around the content.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    target_mm: tuple[float, float, float]
    orientation: str = "RAS"
    rotation: float = 0.0
    reader: str = "SimpleITKIO"
    transpose: tuple[int, int, int] = (0, 1, 2)
    schemes: tuple[str, ...] = ("ZScoreNormalization",)
    use_mask: bool = False
    order: int = 3
    force_separate_z: bool | None = None
    regions: bool = False
    border: tuple[int, int, int] = (1, 2, 1)


CASES = {
    "ct_isotropic": Case(
        shape=(17, 15, 13),
        spacing_mm=(1.5, 1.5, 2.0),
        target_mm=(3, 2.2, 2.5),
        orientation="LPS",
        reader="NibabelIOWithReorient",
        schemes=("CTNormalization",),
    ),
    "thick_slices": Case(shape=(19, 17, 7), spacing_mm=(0.8, 0.8, 4.0), target_mm=(2.5, 1.1, 1.1)),
    "thick_slices_fewer": Case(
        shape=(15, 17, 11), spacing_mm=(0.9, 1, 4), target_mm=(6.5, 1.2, 0.8), schemes=("CTNormalization",)
    ),
    "thick_model": Case(shape=(13, 15, 17), spacing_mm=(1.2, 1.0, 1.1), target_mm=(4, 1, 1.3)),
    "thick_both_ways": Case(
        shape=(15, 17, 8), spacing_mm=(0.7, 0.8, 3.5), target_mm=(1.0, 4.0, 1.1), orientation="PIR"
    ),
    "thick_slices_alike": Case(shape=(17, 14, 12), spacing_mm=(0.4, 1.3, 1.3), target_mm=(1.0, 1.0, 1.0)),
    "ratio_of_three": Case(shape=(12, 14, 9), spacing_mm=(1.0, 1.0, 3.0), target_mm=(2.0, 1.3, 1.3)),
    "never_separate": Case(
        shape=(12, 14, 7), spacing_mm=(0.8, 0.8, 4.0), target_mm=(2.5, 1.1, 1.1), force_separate_z=False
    ),
    "always_separate": Case(
        shape=(12, 14, 9), spacing_mm=(1.0, 1.1, 1.4), target_mm=(2.0, 1.3, 0.9), force_separate_z=True
    ),
    "same_slices": Case(shape=(16, 14, 7), spacing_mm=(0.8, 0.8, 5.0), target_mm=(5.0, 1.0, 1.0)),
    "two_channels_masked": Case(
        shape=(14, 16, 12),
        spacing_mm=(1.0, 1.2, 1.5),
        target_mm=(1.3, 1.0, 1.1),
        orientation="ASR",
        reader="NibabelIOWithReorient",
        transpose=(1, 0, 2),
        schemes=("ZScoreNormalization", "ZScoreNormalization"),
        use_mask=True,
        border=(3, 2, 2),
    ),
    "every_scheme": Case(
        shape=(9, 11, 10),
        spacing_mm=(1.0, 1.3, 1.1),
        target_mm=(1.2, 1.1, 1.4),
        orientation="LAS",
        reader="NibabelIO",
        transpose=(2, 0, 1),
        schemes=("RescaleTo01Normalization", "NoNormalization", "RGBTo01Normalization"),
    ),
    "regions": Case(shape=(14, 12, 10), spacing_mm=(1, 1.2, 2), target_mm=(1.5, 1.5, 1.5), regions=True, order=1),
    "half_voxels": Case(
        shape=(17, 19, 15), spacing_mm=(0.7, 0.9, 1.1), target_mm=(2.2, 1.8, 1.4), rotation=20, border=(0, 0, 0)
    ),
}


def affine_of(case: Case) -> np.ndarray[Any, Any]:
    """Affine to RAS+ of a case's file."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    axes = np.array([directions[letter] for letter in case.orientation], dtype=float).T
    cos, sin = np.cos(np.radians(case.rotation)), np.sin(np.radians(case.rotation))
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) * case.spacing_mm
    affine[:3, 3] = (-11.0, 7.0, 23.0)
    return affine


def scan(case: Case, seed: int) -> np.ndarray[Any, Any]:
    """[c, i, j, k] int16: a smooth shape with sharp edges and holes of 0, and a border of 0."""
    rng = np.random.default_rng(seed)
    channels = []
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in case.shape), indexing="ij"))
    radius = np.sqrt((index**2).sum(0))
    for scheme in case.schemes:
        low, high = (0, 256) if scheme == "RGBTo01Normalization" else (-1100, 700)
        values = rng.integers(low, high, case.shape).astype(np.int16)
        values[(radius > 0.3) & (radius < 0.6)] //= 2
        values[radius < 0.25] = 0
        # A hole that one channel alone has, and a shell that is open to the outside.
        values[radius > 1.25] = 0
        for axis, width in enumerate(case.border):
            line = np.moveaxis(values, axis, 0)
            line[: width + 1] = 0
            line[len(line) - width :] = 0
        channels.append(values)
    return np.stack(channels)


def plans_of(case: Case) -> dict[str, Any]:
    """Plans, as nnunetv2's planner would write them, as far as they matter here."""
    resampling = "resample_data_or_seg_to_shape"
    kwargs = {"is_seg": False, "order_z": 0, "force_separate_z": case.force_separate_z}
    configuration = {
        "spacing": list(case.target_mm),
        "normalization_schemes": list(case.schemes),
        "use_mask_for_norm": [case.use_mask] * len(case.schemes),
        "resampling_fn_data": resampling,
        "resampling_fn_data_kwargs": {**kwargs, "order": case.order},
        "resampling_fn_seg": resampling,
        "resampling_fn_seg_kwargs": {**kwargs, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": {**kwargs, "order": 1},
        "architecture": {},
    }
    return {
        "image_reader_writer": case.reader,
        "transpose_forward": list(case.transpose),
        "transpose_backward": np.argsort(case.transpose).tolist(),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): FOREGROUND for c in range(len(case.schemes))},
        "configurations": {"3d_fullres": configuration},
    }


def dataset_of(case: Case) -> dict[str, Any]:
    """dataset.json."""
    labels: dict[str, Any] = {"background": 0, "a": 1, "b": 2}
    if case.regions:
        labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inner": 3}
    order = {"regions_class_order": [1, 2, 3]} if case.regions else {}
    channels = {str(index): "x" for index in range(len(case.schemes))}
    return {"channel_names": channels, "labels": labels, "file_ending": ".nii.gz", **order}


def record(name: str, case: Case, seed: int, folder: Path) -> dict[str, Any]:
    """Run one case through nnunetv2."""
    array, affine = scan(case, seed), affine_of(case)
    files = []
    for index, channel in enumerate(array):
        image = nibabel.Nifti1Image(channel, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        files.append(str(folder / f"{name}_{index:04d}.nii.gz"))
        nibabel.save(image, files[-1])
    plans = PlansManager(plans_of(case))
    configuration = plans.get_configuration("3d_fullres")
    dataset = dataset_of(case)
    prepared, _, properties = DefaultPreprocessor(verbose=False).run_case(files, None, plans, configuration, dataset)
    coarse = [-(-size // 2) for size in prepared.shape[1:]]
    logits = np.random.default_rng(seed + 100).integers(-40, 40, (HEADS, *coarse)).astype(np.int8)
    for axis, size in enumerate(prepared.shape[1:]):
        logits = logits.repeat(2, axis + 1).take(range(size), axis + 1)
    labels = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(logits.astype(np.float32) / 8),
        plans,
        configuration,
        plans.get_label_manager(dataset),
        properties,
        num_threads_torch=1,
    )
    written = str(folder / f"{name}.nii.gz")
    plans.image_reader_writer_class().write_seg(labels, written, properties)
    mask = np.asarray(nibabel.load(written).dataobj).astype(np.uint8)
    return {"array": array, "affine": affine, "prepared": prepared, "logits": logits, "mask": mask}


def main() -> None:
    """Write one file a case."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("nnunetv2", "scikit-image", "scipy", "numpy", "SimpleITK", "nibabel")}
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, case) in enumerate(CASES.items()):
            arrays = record(name, case, seed, Path(folder))
            about = json.dumps({**asdict(case), "foreground": FOREGROUND, "versions": versions})
            np.savez_compressed(FOLDER / f"{name}.npz", about=about, **arrays)
            print(f"{name}: {arrays['array'].shape} to {arrays['prepared'].shape}")


if __name__ == "__main__":
    main()
