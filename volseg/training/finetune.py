"""Starting from a trained model: its layers are taken where their shapes are those of the recipe's network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from volseg.config import Section, validation_problem
from volseg.errors import UsageError
from volseg.files import write_atomically
from volseg.models.folder import ModelFolder
from volseg.network.unet import UNet
from volseg.training.checkpoint import MovingAverage
from volseg.training.loop import Trainer

START = "start.json"
#: Parts of the recipe that decide what the network sees: weights expect those that they were trained with.
_INPUT = ("orientation", "spacing_mm", "intensity", "crop", "resampling")


@dataclass(frozen=True)
class Start:
    """What a run fine-tunes.

    Attributes
    ----------
    model
        A model folder, also one that was imported from nnU-Net.
    freeze
        Number of the encoder's stages, from full resolution down, whose weights stay as they are.
    """

    model: ModelFolder
    freeze: int = 0


class StartRecord(Section):
    """``start.json``."""

    model: str
    """Name and version."""
    sha256: str
    """The model's hash."""
    freeze: int
    """Number of stages whose weights stayed as they were; see `Start`."""
    weights: tuple[str, ...] = ()
    """Names of the model's weights."""

    def weights_of(self, fold: str) -> str:
        """Name of the weights that a fold starts from: those of its own name, else the first."""
        return fold if fold in self.weights else self.weights[0]


def _record(start: Start) -> StartRecord:
    recipe = start.model.manifest.recipe
    return StartRecord(
        model=f"{recipe.name} {recipe.version}",
        sha256=start.model.sha256,
        freeze=start.freeze,
        weights=tuple(start.model.manifest.weights),
    )


def read_start(run: Path) -> StartRecord | None:
    """What a run fine-tunes; None where it starts from random weights.

    Raises
    ------
    UsageError
        The file is damaged.
    """
    try:
        return StartRecord.model_validate_json((run / START).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise UsageError(f"{run / START}: {validation_problem(error)}") from error


def check_start(run: Path, start: Start | None) -> None:
    """Refuse to go on in a run that started from something else.

    Raises
    ------
    UsageError
        It says from what.
    """
    kept, given = read_start(run), None if start is None else _record(start)
    if kept == given or not (run / "recipe.json").exists():
        return
    told = "random weights" if kept is None else f"model {kept.model} ({kept.sha256[:12]}..., {kept.freeze} frozen)"
    raise UsageError(f"{run}: this run starts from {told}; give the same --from and --freeze, or choose another folder")


def write_start(run: Path, start: Start) -> None:
    """Keep what a run fine-tunes."""
    write_atomically(run / START, (_record(start).model_dump_json(indent=1) + "\n").encode())


def start_from(trainer: Trainer, start: Start, fold: str, held_out: Collection[str]) -> list[str]:
    """Give a trainer the weights of a model, and freeze stages.

    Parameters
    ----------
    trainer
        A trainer that hasn't trained yet.
    start
        The model. Where it has a fold of the name `fold`, that one's weights are taken, else its first ones.
    fold
        Name of the fold that is trained.
    held_out
        Names of the cases that this fold is validated with.

    Returns
    -------
    list of str
        What was taken and what is new, and what makes the comparison unfair, a line each.

    Raises
    ------
    UsageError
        No layer fits, the network has fewer stages than are to be frozen, or one of those doesn't fit.
    """
    model, network = start.model, trainer.network
    stages = len(trainer.recipe.network.features)
    if not 0 <= start.freeze <= stages:
        raise UsageError(f"--freeze {start.freeze}: the network's encoder has {stages} stages")
    chosen = _record(start).weights_of(fold)
    weights, own = model.weights(chosen), network.state_dict()
    taken = _fitting(own, weights)
    if not taken:
        raise UsageError(
            f"{model.path}: none of its layers has the shape of one of the recipe's network; give the recipe the"
            " `network` of the model (model.json holds it)"
        )
    kept = ("stem.", *(f"encoder.{stage}." for stage in range(start.freeze))) if start.freeze else ()
    if unlike := sorted(name for name in own.keys() - taken if name.startswith(kept)):
        raise UsageError(
            f"--freeze {start.freeze}: {', '.join(unlike)} have other shapes than the model's, and would stay random"
        )
    network.load_state_dict({name: weights[name] if name in taken else value for name, value in own.items()})
    trainer.average = MovingAverage(network.state_dict(), trainer.config.ema_decay)
    _freeze(network, start.freeze)
    name = f"{model.manifest.recipe.name} {model.manifest.recipe.version}"
    new = sorted(own.keys() - taken)
    told = [f"{len(taken)} of {len(own)} tensors are those of {name}, fold {chosen}; new: {', '.join(new) or 'none'}"]
    if start.freeze:
        told.append(f"the first {start.freeze} stages of the encoder stay as they are")
    return told + _warnings(trainer, model, held_out)


def _fitting(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors of those layers of which every tensor has the same shape in both."""
    differ = {
        name.rpartition(".")[0]
        for name, value in own.items()
        if name not in weights or weights[name].shape != value.shape
    }
    return {name for name in own if name.rpartition(".")[0] not in differ}


def _warnings(trainer: Trainer, model: ModelFolder, held_out: Collection[str]) -> list[str]:
    theirs, told = model.manifest.recipe, []
    if seen := sorted(set(model.manifest.trained_on.cases) & set(held_out)):
        told.append(
            f"{len(seen)} of the held-out cases have names of cases that {theirs.name} was trained on ({seen[0]}, ...):"
            " the scores on them would be too good"
        )
    for field in _INPUT:
        ours, was = getattr(trainer.recipe, field), getattr(theirs, field)
        if ours != was:
            told.append(f"the recipe's {field} isn't that of {theirs.name}: its weights expect {_short(was)}")
    return told


def _short(value: object) -> str:
    return value.model_dump_json(exclude_defaults=True) if isinstance(value, Section) else str(value)


def _freeze(network: UNet, stages: int) -> None:
    """No optimiser changes these weights, and no batch the statistics of their normalisation."""
    for module in (network.stem, *network.encoder[:stages]) if stages else ():
        module.requires_grad_(False)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.momentum = 0.0
