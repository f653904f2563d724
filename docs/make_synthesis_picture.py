"""Draw docs/synthesis.png from label maps: ``python docs/make_synthesis_picture.py MAPS.csv``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from volseg.config import Recipe, load_recipe, recipe_from_dict
from volseg.datasets.cases import load_dataset
from volseg.training.sampling import Place
from volseg.training.synthesis.image import Synthesis
from volseg.training.synthesis.label_map import LabelMap
from volseg.training.synthesis.maps import map_case

PICTURE = Path(__file__).with_name("synthesis.png")
RECIPE = Path(__file__).parents[1] / "pipelines" / "brain.yaml"
#: What is on in each tile, with the values that show it; everything else is off.
PARTS: dict[str, dict[str, Any]] = {
    "T1": {},
    "T2": {"contrast": "T2"},
    "free": {"contrast": None},
    "free, once more": {"contrast": None, "seed": 5},
    "stripped": {"stripped_probability": 1.0, "kept_fluid_probability": 0.0},
    "blur_mm: 2.5": {"blur_mm": [2.5, 2.5]},
    "thickness_mm: 7": {"thick_probability": 1.0, "thickness_mm": [7.0, 7.0], "seed": 2},
    "bias_strength: 1": {"bias_probability": 1.0, "bias_strength": 1.0, "seed": 4},
    "gamma_strength: 0.7": {"gamma_strength": 0.7, "seed": 3},
    "ghost_strength: 0.9": {"ghost_probability": 1.0, "ghost_strength": 0.9, "seed": 6},
    "noise_std: 0.15": {"noise_probability": 1.0, "noise_std": 0.15, "seed": 1},
    "cut_share: 0.4": {"cut_probability": 1.0, "cut_share": 0.4, "seed": 2},
}
GEOMETRY: dict[str, Any] = {
    "augmentation: rotation, scaling": {
        "rotation_probability": 1.0,
        "rotation_degrees": 25.0,
        "scaling_probability": 1.0,
    },
    "augmentation: elastic": {"elastic_probability": 1.0, "elastic_spacing_mm": 30.0, "elastic_displacement_mm": 12.0},
    "augmentation: flip": {"flip_axes": [0]},
}


def recipe_of(part: dict[str, Any], geometry: dict[str, Any]) -> Recipe:
    """The recipe of the brain at 1.5 mm, with one part of its synthesis on."""
    content = load_recipe(RECIPE).model_dump(mode="json")
    content |= {"spacing_mm": [1.5] * 3, "window": [112, 144, 112]}
    training, contrast = content["training"], part.get("contrast", "T1")
    synthesis, augmentation = training["synthesis"], training["augmentation"]
    for section in (synthesis, augmentation):
        section |= {name: 0.0 for name in section if name.endswith("_probability")}
    synthesis["contrasts"] = [each for each in synthesis["contrasts"] if each["name"] == contrast]
    synthesis |= {"free_weight": float(contrast is None), "blur_mm": [0.4, 0.4], "gamma_strength": 0.0}
    synthesis |= {"dark_background_probability": 1.0, "scan_scale": [1.0, 1.0], "scan_shift": 0.0}
    synthesis |= {name: value for name, value in part.items() if name not in ("contrast", "seed")}
    augmentation |= {"flip_axes": [], **geometry}
    return recipe_from_dict(content, "picture")


def tile(label_map: LabelMap, part: dict[str, Any], geometry: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """A coronal plane of an image, and of its labels."""
    recipe = recipe_of(part, geometry)
    assert recipe.training.synthesis is not None
    start = [(size - 1.5 * length) // 2 for size, length in zip(label_map.labels_DHW.shape, recipe.window, strict=True)]
    place = Place(label_map, (int(start[0]), int(start[1]), int(start[2]) + 25))
    image, labels = Synthesis(recipe, recipe.training.synthesis)(place, np.random.default_rng(part.get("seed", 0)))
    return image[0][:, 64], labels[0][:, 64]


def main() -> None:
    """Draw it."""
    recipe = load_recipe(RECIPE)
    assert recipe.training.synthesis is not None
    case = map_case(load_dataset(Path(sys.argv[1]))[0], recipe, recipe.training.synthesis)
    assert case.label_map is not None
    tiles: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {title: (part, {}) for title, part in PARTS.items()}
    tiles |= {title: ({"seed": 3}, geometry) for title, geometry in GEOMETRY.items()}
    figure, axes = plt.subplots(4, 4, figsize=(9, 9.6))
    colours = np.zeros((256, 3))
    for label in recipe.label_table():
        colours[label.value] = np.array(label.colour) / 255
    for number, axis in enumerate(axes.flat):
        axis.axis("off")
        if not number:
            shown = colours[tile(case.label_map, {}, {})[1].numpy()].transpose(1, 0, 2)
            axis.imshow(shown, origin="lower")
            axis.set_title("labels of a map", fontsize=8)
            continue
        title, (part, geometry) = list(tiles.items())[number - 1]
        axis.imshow(tile(case.label_map, part, geometry)[0].T, cmap="gray", origin="lower")
        axis.set_title(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=66)


if __name__ == "__main__":
    main()
