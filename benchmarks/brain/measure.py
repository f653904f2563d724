"""Dice of a brain model on synthetic scans of heads that it never saw: ``python -m benchmarks.brain.measure MAPS.csv``.

Each head that the recipe holds out is scanned in several contrasts and slice thicknesses, by the synthesis that it is
trained with but with another seed, and predicted with the default options on the scan's own grid. Slices of 5 mm are a
series of that spacing: means over a slice's profile, and the labels at its middle.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import volseg
from benchmarks._machine import machine
from volseg.config import Recipe, SynthesisConfig, load_recipe
from volseg.datasets.cases import load_dataset
from volseg.evaluation.overlap import dice_per_label
from volseg.geometry import Geometry
from volseg.labels.read import load_label_map
from volseg.training.synthesis.maps import trained_labels
from volseg.training.synthesis.resolution import PROFILE, along, gaussian_rows
from volseg.training.synthesis.whole import synthetic_scan
from volseg.volume import LabelVolume, Volume

RECIPE = Path(__file__).parents[2] / "pipelines" / "brain.yaml"
RESULTS = Path(__file__).with_name("results")
#: Contrast (None: drawn freely) and slice thickness in mm; 1 is the map's own grid.
KINDS: tuple[tuple[str | None, float], ...] = (("T1", 1.0), ("T1", 5.0), ("T2", 5.0), (None, 1.0))


@dataclass(frozen=True)
class Scan:
    """A scan, and the labels that it was made of on its grid."""

    head: str
    contrast: str | None
    thickness_mm: float
    volume: Volume
    reference: LabelVolume


def _only(config: SynthesisConfig, contrast: str | None) -> SynthesisConfig:
    """A synthesis of one contrast, without thick slices."""
    kept = [each.model_copy(update={"weight": 1.0}) for each in config.contrasts if each.name == contrast]
    changes = {"contrasts": tuple(kept), "free_weight": float(contrast is None), "thick_probability": 0.0}
    return config.model_copy(update=changes)


def _sliced(volume: Volume, labels: LabelVolume, thickness_mm: float) -> tuple[Volume, LabelVolume]:
    """Thick slices along the axis that goes from feet to head."""
    axis = next(number for number, letter in enumerate(volume.geometry.orientation) if letter in "SI")
    step, size = round(thickness_mm / volume.geometry.spacing_mm[axis]), volume.geometry.shape[axis]
    if step == 1:
        return volume, labels
    middles = torch.arange(step // 2, size, step)
    rows = gaussian_rows(middles.float(), size, PROFILE * step)
    array = along(rows, torch.from_numpy(volume.array), axis).numpy()
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (step // 2)
    affine[:3, axis] *= step
    geometry = Geometry(array.shape, affine)
    mask = labels.array.take(middles.numpy(), axis)
    return Volume(array, geometry, volume.source), LabelVolume(mask, geometry, labels.labels, labels.source)


def scans(maps: Path, recipe: Recipe, config: SynthesisConfig) -> Iterator[Scan]:
    """Every kind of scan of every head that is held out."""
    table = np.zeros(65536, np.uint16)
    table[list(config.values)] = trained_labels(config).numpy()
    held_out = [case for case in load_dataset(maps) if case.name in recipe.training.held_out]
    for number, case in enumerate(held_out):
        labels = load_label_map(case.label)
        reference = LabelVolume(table[labels.array], labels.geometry, recipe.label_table(), labels.source)
        for kind, (contrast, thickness_mm) in enumerate(KINDS):
            rng = np.random.default_rng([2026, number, kind])
            volume = synthetic_scan(labels, recipe, _only(config, contrast), rng)
            yield Scan(case.name, contrast, thickness_mm, *_sliced(volume, reference, thickness_mm))


def main() -> None:
    """Measure, print, and write ``results/scores.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path)
    parser.add_argument("--model", default="brain")
    asked = parser.parse_args()
    recipe = load_recipe(RECIPE)
    config = recipe.training.synthesis
    if config is None:
        raise SystemExit(f"{RECIPE}: no synthesis")
    model, rows = volseg.load_model(asked.model), []
    names = {label.value: label.name for label in recipe.label_table()}
    for scan in scans(asked.maps, recipe, config):
        start = time.perf_counter()
        mask = model.predict(scan.volume)
        seconds = time.perf_counter() - start
        dice = dice_per_label(mask.array, scan.reference.array, list(names))
        by_name = dict(zip(names.values(), dice, strict=True))
        mean = float(np.mean([score for score in dice if score is not None]))
        row: dict[str, Any] = {"head": scan.head, "contrast": scan.contrast or "free", "slices_mm": scan.thickness_mm}
        rows.append(row | {"dice": round(mean, 4), "seconds": round(seconds, 1), "labels": by_name})
        print(scan.head, scan.contrast, scan.thickness_mm, f"{mean:.4f}", f"{seconds:.1f} s", flush=True)
    content = {
        "model": model.folder.sha256,
        "steps": model.folder.manifest.trained_on.steps,
        "machine": machine("torch"),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "scans": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scores.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for contrast, thickness_mm in KINDS:
        found = [r["dice"] for r in rows if (r["contrast"], r["slices_mm"]) == (contrast or "free", thickness_mm)]
        print(f"{contrast or 'free':5} {thickness_mm:g} mm  mean Dice {np.mean(found):.4f} over {len(found)} heads")


if __name__ == "__main__":
    main()
