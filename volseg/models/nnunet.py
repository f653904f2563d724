"""Import a trained nnU-Net v2 results folder: plans.json, dataset.json, fold_*/checkpoint_*.pth."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
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
from volseg.files import read_text
from volseg.models.folder import ModelFolder, TrainedOn, write_model
from volseg.models.nnunet_checkpoint import Checkpoint, read_checkpoint, renamed_weights
from volseg.models.nnunet_network import network_config
from volseg.models.nnunet_plans import (
    Configuration,
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


def import_nnunet(
    folder: Path,
    output: Path,
    profile: Literal["totalsegmentator"] | None = None,
    stage1: Path | None = None,
) -> ModelFolder:
    """Write a model folder that segments as a trained nnU-Net v2 does.

    Parameters
    ----------
    folder
        Results of a training: ``plans.json``, ``dataset.json`` and ``fold_*``.
    output
        Model folder to write; must not exist.
    profile
        Program whose choices around nnU-Net to keep: those of `volseg.models.totalsegmentator`, or none.
    stage1
        Results of the first stage, where `folder` is a cascade's second; unless given, those beside `folder`, where
        nnU-Net puts them.

    Raises
    ------
    ModelError
        Something is absent or damaged, or is a choice that volseg can't follow; the message names it.
    """
    results = _read(folder)
    before = None
    with tempfile.TemporaryDirectory() as temporary:
        if (name := results.config.previous_stage) is not None:
            if profile is not None:
                raise ModelError(f"{folder}: the second stage of a cascade; the profile {profile} is for single models")
            beside = f"{results.first.trainer}__{results.plans.plans_name}__{name}"
            first = _stage1(results, name, stage1 or folder.absolute().parent / beside)
            before = _write(first, Path(temporary) / "stage1")
        elif stage1 is not None:
            raise ModelError(f"{folder}: {results.first.configuration} has no first stage: leave {stage1} out")
        return _write(results, output, profile, before)


@dataclass(frozen=True)
class _Results:
    """What a results folder holds, its checkpoints by fold."""

    folder: Path
    plans: Plans
    dataset: Dataset
    checkpoints: dict[str, Checkpoint]
    config: Configuration

    @property
    def first(self) -> Checkpoint:
        """The first checkpoint: all say the same of how they were trained."""
        return next(iter(self.checkpoints.values()))

    @property
    def inputs(self) -> tuple[dict[int, str], dict[str, int | tuple[int, ...]]]:
        """What both stages of a cascade must agree on: channels and labels."""
        return self.dataset.channel_names, self.dataset.labels


def _read(folder: Path) -> _Results:
    plans = checked(Plans, _json(folder / "plans.json"), str(folder / "plans.json"))
    dataset = checked(Dataset, _json(folder / "dataset.json"), str(folder / "dataset.json"))
    checkpoints = {fold: read_checkpoint(path) for fold, path in _checkpoints(folder).items()}
    for name in ("configuration", "trainer", "mirroring"):
        if len(found := {getattr(checkpoint, name) for checkpoint in checkpoints.values()}) > 1:
            raise ModelError(f"{folder}: the folds differ in their {name}: {', '.join(map(str, found))}")
    (trained, *_) = (checkpoint.configuration for checkpoint in checkpoints.values())
    return _Results(folder, plans, dataset, checkpoints, configuration(plans, trained, folder / "plans.json"))


def _stage1(second: _Results, name: str, folder: Path) -> _Results:
    """Results of the first stage of a cascade: of the configuration `name`, and for the second stage's images."""
    if not (folder / "plans.json").is_file():
        raise ModelError(
            f"{second.folder}: the second stage of a cascade; the results of its first, {name}, aren't in {folder}:"
            " name their folder with --stage1"
        )
    first = _read(folder)
    if first.first.configuration != name or first.config.previous_stage is not None:
        raise ModelError(
            f"{folder}: holds {first.first.configuration}; the first stage of {second.folder} is {name}, without one"
            " before it"
        )
    if first.inputs != second.inputs:
        raise ModelError(f"{folder / 'dataset.json'}: other channels or labels than those of {second.folder}")
    return first


def _write(
    results: _Results,
    output: Path,
    profile: Literal["totalsegmentator"] | None = None,
    stage1: ModelFolder | None = None,
) -> ModelFolder:
    path, plans, checkpoints = results.folder / "plans.json", results.plans, results.checkpoints
    try:
        recipe = _recipe(results)
        check_window(recipe.window, recipe.network)
    except ValidationError as error:
        raise ModelError(f"{path}: {validation_problem(error)}") from error
    except ValueError as error:
        raise ModelError(f"{path}: patch_size: {error}") from error
    if profile is not None:
        recipe = as_totalsegmentator(recipe)
    with torch.device("meta"):
        expected = UNet.from_recipe(recipe, cascaded=stage1 is not None).state_dict()
    stages = len(recipe.network.features)
    states: dict[str, dict[str, Tensor]] = {
        fold: renamed_weights(checkpoint, expected, stages) for fold, checkpoint in checkpoints.items()
    }
    return write_model(
        output,
        recipe,
        _trained_on(plans, recipe),
        states,
        card=_card(recipe, results, (CARD,) if profile else ()),
        metrics={"imported": {fold: checkpoint.sha256 for fold, checkpoint in checkpoints.items()}},
        stage1=stage1,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
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


def _recipe(results: _Results) -> Recipe:
    folder, plans, dataset, config, checkpoint = (
        results.folder,
        results.plans,
        results.dataset,
        results.config,
        results.first,
    )
    path = folder / "plans.json"
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


def _card(recipe: Recipe, results: _Results, more: tuple[str, ...]) -> str:
    """A model card: where the model comes from, and what isn't known of it; `more` are lines of the list."""
    plans, dataset, first = results.plans, results.dataset, results.first
    if results.config.previous_stage is not None:
        more = (f"- second stage of a cascade: it also sees the labels of {results.config.previous_stage}, in stage1/",)
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
    lines += [_row(fold, checkpoint) for fold, checkpoint in results.checkpoints.items()]
    return "\n".join(lines) + "\n"


def _row(fold: str, checkpoint: Checkpoint) -> str:
    epochs = "not stated" if checkpoint.epochs is None else str(checkpoint.epochs)
    return f"| {fold} | {checkpoint.path.name} | {epochs} | {checkpoint.sha256} |"
