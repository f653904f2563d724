"""A trained model, and what segments with it: the model and the options, bound once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from volseg.config import Recipe
from volseg.errors import InputError, ModelError, UsageError
from volseg.events import Cancel, Listener, Planned, Stage, nobody
from volseg.geometry import Geometry
from volseg.inference.content import check_content
from volseg.inference.engines import EngineChoice, PrecisionChoice
from volseg.inference.engines.loaded import Engines
from volseg.inference.fit import Mismatch, range_mismatch
from volseg.inference.focus import narrowed
from volseg.inference.maps import MapKinds, Maps
from volseg.inference.memory import Plan, plan_memory
from volseg.inference.options import Options
from volseg.inference.quality import Quality
from volseg.inference.restore import on_grid
from volseg.inference.stream import Streamed, stream
from volseg.machine import check_device, one_thread
from volseg.models import model_path
from volseg.models.folder import ModelFolder, read_model
from volseg.network.unet import check_window
from volseg.postprocess.rules import apply_rules
from volseg.preprocess import Prepared, prepare
from volseg.preprocess.stage1 import prepare_second
from volseg.volume import Label, LabelVolume, Volume, canonical_modality


@dataclass(frozen=True)
class Ready:
    """A scan that waits for the network.

    Attributes
    ----------
    volume, prepared
        The scan, and the network's input; of a cascade, that of the first stage.
    plan
        The memory that it will take.
    seconds
        Wall time of each stage so far.
    second
        The memory that a cascade's second stage will take.
    """

    volume: Volume
    prepared: Prepared
    plan: Plan
    seconds: dict[str, float]
    second: Plan | None = None


@dataclass(frozen=True)
class Prediction:
    """A segmentation, and how it came about.

    Attributes
    ----------
    mask
        The mask on the grid of the scan's own slices, post-processed.
    windows
        Number of windows that the network saw, mirrored passes not counted.
    quality
        Quality of each label before it was post-processed, by its value.
    maps
        Maps of probabilities and entropy before post-processing, where the options ask for them.
    seconds
        Wall time of each stage. Restoring goes on beside the network: its time is how much longer it took. A cascade's
        first stage counts as one, up to the second's input.
    """

    mask: LabelVolume
    windows: int
    quality: dict[int, Quality]
    maps: Maps | None
    seconds: dict[str, float]


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 4)


class Model:
    """A model folder, ready to segment.

    Parameters
    ----------
    folder
        The model folder, as `volseg.models.folder.read_model` gives it.
    """

    def __init__(self, folder: ModelFolder) -> None:
        try:
            check_window(folder.manifest.recipe.window, folder.manifest.recipe.network)
        except ValueError as error:
            raise ModelError(f"{folder.path}: window: {error}") from error
        self.folder = folder
        self.recipe = folder.manifest.recipe
        self.trained_on = folder.manifest.trained_on
        self.stage1 = None if folder.stage1 is None else Model(folder.stage1)
        self.engines = Engines(folder)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.recipe.name

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.recipe.version

    @property
    def sha256(self) -> str:
        """Hash of the model."""
        return self.folder.sha256

    def modality_mismatch(self, modality: str | None) -> Mismatch | None:
        """Say where a modality is another than the model's; one that isn't known is taken as fitting."""
        accepted = [name for channel in self.recipe.channels for name in channel.modalities]
        if modality is None or not accepted or canonical_modality(modality) in accepted:
            return None
        return Mismatch("modality", f"modality {modality}; the model takes {', '.join(sorted(set(accepted)))}")

    def mismatch(self, modality: str | None, geometry: Geometry) -> Mismatch | None:
        """Say why a scan doesn't fit the model, or None where it does."""
        return self.modality_mismatch(modality) or range_mismatch(geometry, self.recipe, self.trained_on)

    def predict(
        self,
        volume: Volume,
        *,
        mirroring: bool | None = None,
        engine: EngineChoice = "auto",
        precision: PrecisionChoice = "auto",
        device: str = "cpu",
    ) -> LabelVolume:
        """Segment a volume.

        Parameters
        ----------
        volume
            Scan with as many channels as the model takes.
        mirroring
            Whether mirrored passes are averaged; None: as the recipe says.
        engine, precision
            Names of the engine (``auto``, ``torch`` or ``openvino``) and of its precision (``auto``, ``fp32`` or
            ``bf16``).
        device
            Name of the device: ``cpu``, ``cuda`` or ``mps``.

        Returns
        -------
        LabelVolume
            On the volume's own grid: same shape, same affine. Where the volume was resampled from tilted slices, on
            those.
        """
        options = Options(mirroring=mirroring, engine=engine, precision=precision, device=device)
        return Segmenter(self, options).segment(volume).mask


def load_model(name_or_folder: str | Path) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_folder
        A bundled name (``"hippocampus"``) or a model folder.

    Raises
    ------
    ModelError
        No such model, or one that can't be used.
    """
    return Model(read_model(model_path(name_or_folder)))


class Segmenter:
    """A model and how it is run, bound once, for any number of scans: its weights are loaded.

    A scan goes through `prepare`, `run` and `finish`, or through `segment`, which is all three. While one thread runs a
    scan, others may prepare the next and finish the last. Events bear the name of the volume's source.

    Parameters
    ----------
    model
        The model to run.
    options
        The options to run it with.

    Attributes
    ----------
    recipe
        The model's recipe, with the step of the options.
    folds
        Names of the folds that are averaged.
    engines
        Engines that run them.
    wanted
        Labels to find, in ascending order of value.
    mirroring
        Whether mirrored passes are averaged.
    stage1
        The segmenter of a cascade's first stage.

    Raises
    ------
    ModelError
        Weights that are absent, were changed, or aren't those of the recipe's network.
    UsageError
        A fold, a label, a device or an engine that isn't there.
    """

    def __init__(self, model: Model, options: Options | None = None) -> None:
        self.model, self.options = model, options or Options()
        check_device(self.options.device)
        self.recipe = _stepped(model.recipe, self.options.tile_step)
        self.mirroring = model.recipe.mirroring.use if self.options.mirroring is None else self.options.mirroring
        self.folds = _folds(model, self.options.folds)
        self.wanted = _wanted(model, self.options.labels)
        values = {label.value for label in self.wanted}
        self._rules = [rule for rule in model.recipe.postprocess if rule.label in values]
        self._kinds = MapKinds(frozenset(values if self.options.probabilities else ()), self.options.entropy)
        self.engines = model.engines.of(self.folds, self.options.engine, self.options.precision, self.options.device)
        self.stage1 = None if model.stage1 is None else Segmenter(model.stage1, _options1(model.stage1, self.options))

    def prepare(self, volume: Volume, listener: Listener = nobody) -> Ready:
        """First step of `segment`: plan the memory, which is told as `Planned`, and preprocess.

        It doesn't use the network.

        Raises
        ------
        InputError
            Code ``channels``: another number of channels than the model's. Code ``constant``: all voxels are alike.
        RefusalError
            Code ``memory``: it needs more than the options allow.
        """
        channels = self.recipe.channels
        if volume.channels != len(channels):
            names = ", ".join(channel.name for channel in channels)
            raise InputError(f"{volume.channels} channels; the model takes {len(channels)} ({names})", code="channels")
        plans = self._plans(volume)
        largest = max(plans, key=lambda plan: plan.total)
        check_content(volume)
        listener(Planned(case=volume.source.name, total=largest.total, text=str(largest)))
        start = time.perf_counter()
        # Matrix products differ in their last bits between numbers of threads, and beside a network there is one.
        with one_thread():
            prepared = prepare(volume, (self.stage1 or self).recipe)
        first, *second = plans
        return Ready(volume, prepared, first, {"preprocess": _since(start)}, *second)

    def _plans(self, volume: Volume) -> list[Plan]:
        """Memory that the network takes; of a cascade one plan a stage."""
        before = [] if self.stage1 is None else self.stage1._plans(volume)
        stage1 = None if self.stage1 is None else self.stage1.recipe
        return [*before, plan_memory(volume, self.recipe, self.engines, self.options.memory, stage1)]

    def run(self, ready: Ready, listener: Listener = nobody, cancel: Cancel | None = None) -> Streamed:
        """Second step: the network, or of a cascade both after each other, and labels on the grid of the volume.

        Each window is told as `Progress`.

        Raises
        ------
        CancelledError
            `cancel` ended it between two windows.
        RefusalError, ModelError
            Those of `volseg.inference.stream.stream`.
        """
        stage = Stage(case=ready.volume.source.name, listener=listener, cancel=cancel or Cancel())
        if self.stage1 is None or ready.second is None:
            return self._run(ready, stage)
        start = time.perf_counter()
        first = self.stage1._run(ready, replace(stage, name="first stage"))
        mask = self.stage1._finished(first)
        with one_thread():
            prepared = prepare_second(ready.volume, mask, self.recipe)
        seconds = {"stage1": _since(start)}
        second = self._run(Ready(ready.volume, prepared, ready.second, {}), replace(stage, name="second stage"))
        return replace(second, windows=first.windows + second.windows, seconds=seconds | second.seconds)

    def _run(self, ready: Ready, stage: Stage) -> Streamed:
        """One network's work."""
        prepared, start, windows = ready.prepared, time.perf_counter(), 0
        placement, wanted = ready.plan.placement, {label.value for label in self.wanted}
        if self.options.coarse_to_fine:
            coarse = replace(stage, name="coarse pass")
            prepared, windows = narrowed(prepared, self.engines, self.recipe, wanted, placement, coarse)
        coarse_seconds = time.perf_counter() - start
        if self.recipe.output == "softmax" and any(rule.fill_holes for rule in self._rules):
            wanted = {label.value for label in self.recipe.labels}  # a hole is where there is no other label
        streamed = stream(
            prepared,
            self.engines,
            self.recipe,
            ready.volume.source,
            mirrored=self.recipe.mirroring.axes if self.mirroring else (),
            wanted=wanted,
            kinds=self._kinds,
            placement=placement,
            stage=stage,
        )
        streamed.windows += windows
        streamed.seconds["network"] = round(streamed.seconds["network"] + coarse_seconds, 4)
        return streamed

    def _finished(self, streamed: Streamed) -> LabelVolume:
        """The mask by the recipe's rules, on the grid that it was made on."""
        return apply_rules(streamed.mask, self._rules).only(self.wanted)

    def finish(self, streamed: Streamed) -> Prediction:
        """Last step: the recipe's rules, and the grid of the scan's own slices where the volume's is another.

        It doesn't use the network.
        """
        start = time.perf_counter()
        mask, stored = self._finished(streamed), streamed.mask.source.stored
        if stored is not None:
            mask = on_grid(mask, stored)
        seconds = streamed.seconds | {"postprocess": _since(start)}
        return Prediction(mask, streamed.windows, streamed.quality, streamed.maps, seconds)

    def segment(self, volume: Volume, listener: Listener = nobody, cancel: Cancel | None = None) -> Prediction:
        """Segment a volume and say how long each step took.

        Parameters
        ----------
        volume
            Scan with as many channels as the model takes.
        listener
            A function that is called with the plan and after each window.
        cancel
            The token that may end it between two windows.

        Raises
        ------
        CancelledError, ModelError, RefusalError
            Those of `prepare` and `run`.
        """
        ready = self.prepare(volume, listener)
        prediction = self.finish(self.run(ready, listener, cancel))
        return replace(prediction, seconds=ready.seconds | prediction.seconds)


def _stepped(recipe: Recipe, tile_step: float | None) -> Recipe:
    return recipe if tile_step is None else recipe.model_copy(update={"tile_step": tile_step})


def _folds(model: Model, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the folds that are asked for; all where none is."""
    available = tuple(model.folder.manifest.weights)
    if unknown := [fold for fold in asked if fold not in available]:
        raise UsageError(f"model {model.name} has no fold {', '.join(unknown)}; it has {', '.join(available)}")
    return asked or available


def _wanted(model: Model, asked: tuple[str, ...]) -> tuple[Label, ...]:
    """Labels whose names or values are asked for, in ascending order of value; all where none is."""
    table = model.recipe.label_table()
    known = {key for label in table for key in (label.name, str(label.value))}
    if unknown := [name for name in asked if name not in known]:
        listed = ", ".join(f"{label.name} ({label.value})" for label in table)
        raise UsageError(f"model {model.name} has no label {', '.join(unknown)}; it has {listed}")
    return tuple(label for label in table if not asked or {label.name, str(label.value)} & {*asked})


def _options1(stage1: Model, options: Options) -> Options:
    """How a cascade's first stage is run: labels alone, of every kind, by those of the chosen folds that it has."""
    available = stage1.folder.manifest.weights
    return replace(
        options,
        folds=tuple(fold for fold in options.folds if fold in available),
        labels=(),
        coarse_to_fine=False,
        probabilities=False,
        entropy=False,
    )
