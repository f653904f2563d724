"""Import a trained nnU-Net v2 results folder: plans.json, dataset.json, fold_*/checkpoint_*.pth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from volseg.config import (
    AugmentationConfig,
    MirroringConfig,
    NetworkConfig,
    Recipe,
    TrainingConfig,
    validation_problem,
)
from volseg.errors import ModelError
from volseg.models.folder import ModelFolder, TrainedOn, write_model
from volseg.models.nnunet_checkpoint import Checkpoint, read_checkpoint, renamed_weights
from volseg.models.nnunet_network import network_config
from volseg.models.nnunet_plans import (
    Dataset,
    Plans,
    channels,
    checked,
    configuration,
    labels,
    orientation,
    resampling,
)
from volseg.models.totalsegmentator import CARD, as_totalsegmentator
from volseg.network.unet import UNet, check_window

#: In the order of preference; nnU-Net predicts with the first unless told otherwise.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


def import_nnunet(folder: Path, output: Path, profile: Literal["totalsegmentator"] | None = None) -> ModelFolder:
    """Write a model folder that segments as a trained nnU-Net v2 does.

    Parameters
    ----------
    folder
        Results of a training: ``plans.json``, ``dataset.json`` and ``fold_*``.
    output
        Model folder to write; must not exist.
    profile
        Whose choices around nnU-Net to keep: those of `volseg.models.totalsegmentator`, or none.

    Raises
    ------
    ModelError
        Something is absent or damaged, or is a choice that volseg can't follow; the message names it.
    """
    plans = checked(Plans, _json(folder / "plans.json"), str(folder / "plans.json"))
    dataset = checked(Dataset, _json(folder / "dataset.json"), str(folder / "dataset.json"))
    checkpoints = {fold: read_checkpoint(path) for fold, path in _checkpoints(folder).items()}
    for name in ("configuration", "trainer", "mirroring"):
        if len(found := {getattr(checkpoint, name) for checkpoint in checkpoints.values()}) > 1:
            raise ModelError(f"{folder}: the folds differ in their {name}: {', '.join(map(str, found))}")
    first = next(iter(checkpoints.values()))
    try:
        recipe = _recipe(folder, plans, dataset, first)
        check_window(recipe.window, recipe.network)
    except ValidationError as error:
        raise ModelError(f"{folder / 'plans.json'}: {validation_problem(error)}") from error
    except ValueError as error:
        raise ModelError(f"{folder / 'plans.json'}: patch_size: {error}") from error
    if profile is not None:
        recipe = as_totalsegmentator(recipe)
    with torch.device("meta"):
        expected = UNet.from_recipe(recipe).state_dict()
    stages = len(recipe.network.features)
    states: dict[str, dict[str, Tensor]] = {
        fold: renamed_weights(checkpoint, expected, stages) for fold, checkpoint in checkpoints.items()
    }
    return write_model(
        output,
        recipe,
        _trained_on(plans, recipe),
        states,
        card=_card(recipe, plans, dataset, checkpoints, (CARD,) if profile else ()),
        metrics={"imported": {fold: checkpoint.sha256 for fold, checkpoint in checkpoints.items()}},
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path}: can't be read; is its folder the results of nnU-Net v2? ({error.strerror})"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error


def _checkpoints(folder: Path) -> dict[str, Path]:
    """The checkpoint of each fold. As in nnU-Net, fold_all counts where there is no other."""
    found = {}
    for path in sorted(folder.glob("fold_*")):
        present = [path / name for name in CHECKPOINTS if (path / name).is_file()]
        if present and re.fullmatch(r"fold_(\d+|all)", path.name):
            found[path.name.removeprefix("fold_")] = present[0]
    if not found:
        raise ModelError(f"{folder}: no fold_* holds a {' or a '.join(CHECKPOINTS)}")
    if len(found) > 1:
        found.pop("all", None)
    return found


def _recipe(folder: Path, plans: Plans, dataset: Dataset, checkpoint: Checkpoint) -> Recipe:
    path = folder / "plans.json"
    config = configuration(plans, checkpoint.configuration, path)
    named, output = labels(dataset, folder / "dataset.json")
    network = network_config(config.architecture, f"{path}: architecture")
    if any(name.endswith("running_mean") for name in checkpoint.weights):
        # nnUNetTrainerBN takes batch normalisation, and the plans don't say so.
        network = NetworkConfig.model_validate(network.model_dump() | {"normalisation": "batch"})
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{plans.dataset_name}-{checkpoint.configuration}").lstrip("_.-")
    return Recipe(
        name=name,
        description=f"{len(named)} labels, imported from nnU-Net ({plans.dataset_name}, {checkpoint.configuration})",
        channels=channels(dataset, plans, config, path),
        labels=named,
        output=output,
        orientation=orientation(plans, path),
        spacing_mm=config.spacing,
        window=config.patch_size,
        crop="nonzero",
        resampling=resampling(config, path),
        network=network,
        mirroring=MirroringConfig(axes=checkpoint.mirroring, use=bool(checkpoint.mirroring)),
        training=TrainingConfig(augmentation=AugmentationConfig(flip_axes=checkpoint.mirroring)),
    )


def _trained_on(plans: Plans, recipe: Recipe) -> TrainedOn:
    """What the plans say: the intensities of the foreground. They name no cases, and no range of spacings."""
    known = plans.foreground_intensity_properties_per_channel
    spans = [known.get(number) for number in range(len(recipe.channels))]
    return TrainedOn(
        cases=(),
        spacing_mm=None,
        extent_mm=None,
        intensity=tuple((span.percentile_00_5, span.percentile_99_5) for span in spans if span is not None),
        steps=None,
        seconds=None,
        threads=None,
        volseg=None,
    )


def _card(
    recipe: Recipe, plans: Plans, dataset: Dataset, checkpoints: dict[str, Checkpoint], more: tuple[str, ...]
) -> str:
    """A model card: where the model comes from, and what isn't known of it; `more` are lines of the list."""
    first = next(iter(checkpoints.values()))
    mirrored = ", ".join("DHW"[axis] for axis in recipe.mirroring.axes) or "no axis"
    cases = "an unknown number of" if dataset.num_training is None else str(dataset.num_training)
    lines = [
        f"# {recipe.name} {recipe.version}",
        "",
        "Imported from a results folder of nnU-Net v2. Volseg didn't train it.",
        "",
        f"- dataset {plans.dataset_name}, plans {plans.plans_name}, configuration {first.configuration}, trainer"
        f" {first.trainer}",
        f"- labels: {', '.join(f'{label.value} {label.name}' for label in recipe.labels)}",
        f"- input: {', '.join(channel.name for channel in recipe.channels)}; the modality is checked only where the"
        " channel's name is one",
        f"- trained on {cases} cases, whose names, spacings and fields of view nnU-Net's files don't state: no scan is"
        " skipped because of them",
        "- `trained_on.intensity` in model.json is that of the labelled voxels, as in plans.json",
        f"- its training mirrored along {mirrored} (D, H, W); by default prediction does"
        f"{'' if recipe.mirroring.use else ' not'}",
        *more,
        "- not known: the licence of the weights and of the training data, the accuracy, the patients",
        "",
        "| fold | checkpoint | epochs | sha256 |",
        "|---|---|---|---|",
    ]
    lines += [_row(fold, checkpoint) for fold, checkpoint in checkpoints.items()]
    return "\n".join(lines) + "\n"


def _row(fold: str, checkpoint: Checkpoint) -> str:
    epochs = "not stated" if checkpoint.epochs is None else str(checkpoint.epochs)
    return f"| {fold} | {checkpoint.path.name} | {epochs} | {checkpoint.sha256} |"
