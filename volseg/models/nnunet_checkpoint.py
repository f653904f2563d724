"""Checkpoints that nnU-Net v2 saved: unpickled with a fixed list of harmless types, weights renamed to volseg's."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volseg.errors import ModelError

#: What stands beside the tensors: numpy's numbers (losses, timestamps) and arrays of them.
_NUMBERS = ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

#: nnU-Net's layers and volseg's. Its decoder counts stages from the lowest up, ours (`up`) from full resolution down.
_PART = r"(?P<part>conv|norm)"
_STAGE = r"stages\.(?P<stage>\d+)"
_LAYERS = {
    rf"encoder\.stem\.convs\.0\.{_PART}": "stem.{part}",
    rf"encoder\.{_STAGE}\.0\.convs\.(?P<block>\d+)\.{_PART}": "encoder.{stage}.blocks.{block}.{part}",
    rf"encoder\.{_STAGE}\.blocks\.(?P<block>\d+)\.conv1\.{_PART}": "encoder.{stage}.{block}.blocks.0.{part}",
    rf"encoder\.{_STAGE}\.blocks\.(?P<block>\d+)\.conv2\.{_PART}": "encoder.{stage}.{block}.blocks.1.{part}",
    rf"encoder\.{_STAGE}\.blocks\.(?P<block>\d+)\.skip\.(?P<skip>\d+)\.{_PART}": (
        "encoder.{stage}.{block}.shortcut.{shortcut}"
    ),
    rf"decoder\.{_STAGE}\.convs\.(?P<block>\d+)\.{_PART}": "decoder.{up}.blocks.{block}.{part}",
    r"decoder\.transpconvs\.(?P<stage>\d+)": "upsampling.{up}",
    r"decoder\.seg_layers\.(?P<stage>\d+)": "outputs.{up}",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says.

    Attributes
    ----------
    path
        The file.
    sha256
        Its hash.
    weights
        Weights by nnU-Net's names.
    configuration
        Name of the plans' configuration that was trained.
    trainer
        Name of the trainer's class.
    epochs
        Number of epochs that it trained; None where the file doesn't say.
    mirroring
        Axes of the network's input along which nnU-Net mirrors by default.
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    configuration: str
    trainer: str
    epochs: int | None
    mirroring: tuple[int, ...]


def _harmless() -> Iterator[Any]:
    """Types that a checkpoint may hold beside tensors, none of which runs code; also under numpy 1's module name."""
    multiarray = importlib.import_module("numpy._core.multiarray")
    for function in (multiarray.scalar, multiarray._reconstruct):
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            yield function, f"{module}.{function.__name__}"
    yield np.ndarray
    yield np.dtype
    for name in _NUMBERS:
        yield type(np.dtype(name))


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(_harmless())):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise ModelError(
                f"{path}: the checkpoint holds {found[1]}, which is not among the types that volseg unpickles"
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: not a checkpoint of nnU-Net v2, or a damaged one: {reason}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Raises
    ------
    ModelError
        The file can't be read, isn't a checkpoint of nnU-Net v2, or holds a type that isn't on the list.
    """
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: the checkpoint can't be read: {error.strerror}") from error
    content = _unpickled(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a checkpoint of nnU-Net v2: it holds a {type(content).__name__}")
    try:
        weights = dict(content["network_weights"])
        if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
            raise TypeError("network_weights")
        epochs = content.get("current_epoch")
        return Checkpoint(
            path=path,
            sha256=sha256,
            weights=weights,
            configuration=str(content["init_args"]["configuration"]),
            trainer=str(content["trainer_name"]),
            epochs=None if epochs is None else int(epochs),
            mirroring=tuple(int(axis) for axis in content.get("inference_allowed_mirroring_axes") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a checkpoint of nnU-Net v2: it has no usable {error}") from error


def _renamed(name: str, stages: int) -> str | None:
    """Volseg's name of a weight of nnU-Net's, or None where it isn't known."""
    layer, _, leaf = name.rpartition(".")
    for pattern, ours in _LAYERS.items():
        if match := re.fullmatch(pattern, layer):
            found = match.groupdict()
            numbers = {key: int(value) for key, value in found.items() if key != "part"}
            part = ("conv", "norm").index(found.get("part", "conv"))
            shortcut, up = numbers.get("skip", 0) + part, stages - 2 - numbers.get("stage", 0)
            return ours.format(**numbers, part=part, shortcut=shortcut, up=up) + f".{leaf}"
    return None


def renamed_weights(checkpoint: Checkpoint, expected: Mapping[str, Tensor], stages: int) -> dict[str, Tensor]:
    """Weights by volseg's names, in float32.

    nnU-Net saves some under several names, and outputs of the lower decoder stages, which only training uses: these
    are left out.

    Parameters
    ----------
    checkpoint
        The checkpoint, as `read_checkpoint` gives it.
    expected
        The network's weights: names and shapes are compared.
    stages
        Stages of the network.

    Raises
    ------
    ModelError
        The weights are others than those of the network that the plans describe; it names the first.
    """
    state = {}
    for name, value in checkpoint.weights.items():
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", name)
        if ".all_modules." in name or name.startswith("decoder.encoder."):
            continue
        ours = _renamed(name, stages)
        if ours is None or (ours not in expected and not ours.startswith("outputs.")):
            raise ModelError(
                f"{checkpoint.path}: holds the weight {name}, and the network in plans.json has none there"
            )
        if ours in expected:
            if value.shape != expected[ours].shape:
                raise ModelError(
                    f"{checkpoint.path}: the weight {name} has shape {tuple(value.shape)}, and in the network of"
                    f" plans.json {tuple(expected[ours].shape)}"
                )
            state[ours] = value.float() if value.is_floating_point() else value
    if missing := [name for name in expected if name not in state]:
        raise ModelError(f"{checkpoint.path}: lacks weights of the network in plans.json, such as {missing[0]}")
    return state
