"""The model folder: ``model.json``, ``weights/fold_*.safetensors``, ``CARD.md``, ``metrics.json``.

A cascade's first stage is a model folder inside it, ``stage1/``. ``model.json`` holds the sha256 of each weight file
and of the first stage's ``model.json``, and its own sha256 is the model's hash: a model of which anything was changed
isn't used. Loading runs no code from the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
from pydantic import Field, ValidationError
from torch import Tensor

from volseg.config import Recipe, Section, validation_problem
from volseg.errors import ModelError

MANIFEST = "model.json"
#: Folder of a cascade's first stage.
STAGE1 = "stage1"

#: Smallest and largest value.
Span = tuple[float, float]


class TrainedOn(Section):
    """What a model was trained on: the ranges that `predict` compares a scan with.

    Of a model that another tool trained some of it isn't known: null, or an empty list.
    """

    cases: tuple[str, ...]
    """Names of the training cases."""
    spacing_mm: tuple[Span, Span, Span] | None
    """Spacing of the scans along the model's D, H, W."""
    extent_mm: tuple[Span, Span, Span] | None
    """Field of view of the scans along the model's D, H, W."""
    intensity: tuple[Span, ...]
    """Voxel values, one span a channel: the medians, over the cases, of the 0.5th and 99.5th percentile."""
    volumes_ml: dict[str, Span] | None = None
    """Volume of each label in the training cases, by its name; a label that a case lacks has 0 there."""
    steps: int | None
    """Optimiser steps."""
    seconds: float | None
    """Wall time of the training."""
    threads: int | None
    """Threads that it ran on."""
    volseg: str | None
    """Version that trained it."""

    @property
    def minutes(self) -> float:
        """Wall time of the training; 0 where it isn't known."""
        return (self.seconds or 0.0) / 60


class Manifest(Section):
    """``model.json``."""

    format: Literal[1] = 1
    """Version of this layout."""
    recipe: Recipe
    """The resolved recipe."""
    trained_on: TrainedOn
    """Training data."""
    weights: Annotated[dict[str, str], Field(min_length=1)]
    """sha256 of each weight file, by the name of its fold (a number, or ``all``)."""
    stage1: str | None = None
    """SHA-256 of the ``model.json`` of a cascade's first stage. The network sees its labels beside the channels."""


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that was read and whose weights match its manifest.

    Attributes
    ----------
    path
        The folder.
    manifest
        Content of ``model.json``.
    sha256
        The model's hash.
    stage1
        The first stage of a cascade.
    """

    path: Path
    manifest: Manifest
    sha256: str
    stage1: ModelFolder | None = None

    def weights(self, fold: str) -> dict[str, Tensor]:
        """Weights of one fold.

        Raises
        ------
        ModelError
            The model has no such fold, or the file isn't the one that the manifest names.
        """
        expected = self.manifest.weights.get(fold)
        if expected is None:
            raise ModelError(f"{self.path}: has no fold {fold!r}; it has {', '.join(self.manifest.weights)}")
        file = weight_file(self.path, fold)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ModelError(f"{file}: the weights can't be read: {error.strerror}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ModelError(
                f"{file}: the weights were changed: their sha256 is {found[:12]}..., {MANIFEST} says {expected[:12]}..."
            )
        try:
            state: dict[str, Tensor] = safetensors.torch.load(content)
        except safetensors.SafetensorError as error:
            raise ModelError(f"{file}: not a safetensors file: {error}") from error
        return state


def spans_text(spans: Sequence[Span] | None) -> str:
    """Ranges along D, H, W in mm for people."""
    shown = [f"{low:g}" if low == high else f"{low:g}-{high:g}" for low, high in spans or ()]
    return "not known" if spans is None else " x ".join(shown) + " mm"


def weight_file(folder: Path, fold: str) -> Path:
    """Path of a fold's weights."""
    return folder / "weights" / f"fold_{fold}.safetensors"


def read_model(folder: Path) -> ModelFolder:
    """Read a model folder's manifest, and that of a cascade's first stage.

    Raises
    ------
    ModelError
        No ``model.json`` there, one that can't be used, or another first stage than the one that it names.
    """
    file = folder / MANIFEST
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{folder}: not a model folder: it has no {MANIFEST} ({error.strerror})") from error
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ModelError(f"{file}: {validation_problem(error)}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    return ModelFolder(folder, manifest, sha256, _read_stage1(folder, manifest.stage1))


def _read_stage1(folder: Path, expected: str | None) -> ModelFolder | None:
    if expected is None:
        return None
    stage1 = read_model(folder / STAGE1)
    if stage1.sha256 != expected:
        raise ModelError(
            f"{stage1.path / MANIFEST}: the first stage was changed: its sha256 is {stage1.sha256[:12]}...,"
            f" {folder / MANIFEST} says {expected[:12]}..."
        )
    return stage1


def write_model(
    folder: Path,
    recipe: Recipe,
    trained_on: TrainedOn,
    states: Mapping[str, Mapping[str, Tensor]],
    *,
    card: str,
    metrics: Mapping[str, Any],
    stage1: ModelFolder | None = None,
) -> ModelFolder:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    folder
        Folder to write, which must not exist.
    recipe, trained_on
        Recipe and training data for the manifest.
    states
        Weights by the name of the fold.
    card
        Text for people, Markdown.
    metrics
        Scores for people, as JSON.
    stage1
        First stage of a cascade, which is copied.
    """
    if folder.exists():
        raise ModelError(f"{folder}: exists already; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        (part / "weights").mkdir()
        hashes = {}
        for fold, state in states.items():
            content = safetensors.torch.save({name: value.contiguous() for name, value in state.items()})
            weight_file(part, fold).write_bytes(content)
            hashes[fold] = hashlib.sha256(content).hexdigest()
        if stage1 is not None:
            shutil.copytree(stage1.path, part / STAGE1)
        manifest = Manifest(
            recipe=recipe, trained_on=trained_on, weights=hashes, stage1=None if stage1 is None else stage1.sha256
        )
        (part / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (part / "CARD.md").write_text(card, encoding="utf-8")
        (part / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read_model(folder)
