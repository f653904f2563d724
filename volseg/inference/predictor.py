"""A trained model that segments volumes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from volseg.config import PostprocessRule, Recipe
from volseg.errors import InputError, ModelError, UsageError
from volseg.geometry import Geometry
from volseg.inference.engines import Engine, EngineChoice, PrecisionChoice
from volseg.inference.engines.choice import make_engine
from volseg.inference.engines.head import leaves_head
from volseg.inference.engines.stage1 import Stage1Engine
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
from volseg.network.unet import UNet, check_window, stage1_values
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
        The scan, and what the network will see; of a cascade, that of the first stage.
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
    labels
        On the grid of the scan's own slices, post-processed.
    windows
        Number of windows that the network saw, mirrored passes not counted.
    quality
        What is known of each label before it was post-processed, by its value.
    maps
        Of probabilities and entropy before post-processing, where `Options` ask for them.
    seconds
        Wall time of each stage. Restoring goes on beside the network: its time is what it took longer. A cascade's
        first stage counts as one, up to the second's input.
    """

    labels: LabelVolume
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
        As `volseg.models.folder.read_model` gives it.
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
        self._engines: dict[tuple[str, EngineChoice, PrecisionChoice, str, bool], Engine] = {}

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

    def folds(self, options: Options) -> tuple[str, ...]:
        """Names of the folds that `options` chooses.

        Raises
        ------
        UsageError
            A fold that the model doesn't have.
        """
        available = tuple(self.folder.manifest.weights)
        if unknown := [fold for fold in options.folds if fold not in available]:
            raise UsageError(f"model {self.name} has no fold {', '.join(unknown)}; it has {', '.join(available)}")
        return options.folds or available

    def wanted(self, options: Options) -> tuple[Label, ...]:
        """Labels that `options` choose, in ascending order of value.

        Raises
        ------
        UsageError
            A label that the model doesn't have.
        """
        table = self.recipe.label_table()
        known = {key for label in table for key in (label.name, str(label.value))}
        if unknown := [name for name in options.labels if name not in known]:
            listed = ", ".join(f"{label.name} ({label.value})" for label in table)
            raise UsageError(f"model {self.name} has no label {', '.join(unknown)}; it has {listed}")
        return tuple(
            label for label in table if not options.labels or {label.name, str(label.value)} & {*options.labels}
        )

    def engines(self, options: Options) -> list[Engine]:
        """One engine a fold, loaded once.

        Raises
        ------
        ModelError
            Weights that are absent, were changed, or aren't those of the recipe's network.
        UsageError
            A fold, a device or an engine that isn't there.
        """
        check_device(options.device)
        engines = []
        folds = self.folds(options)
        leave_head = leaves_head(self.recipe, len(folds))
        for fold in folds:
            key = (fold, options.engine, options.precision, options.device, leave_head)
            if key not in self._engines:
                # Without memory at first: random weights take a while, and are thrown away.
                with torch.device("meta"):
                    network = UNet.from_recipe(self.recipe, cascaded=self.stage1 is not None)
                try:
                    network.load_state_dict(self.folder.weights(fold), assign=True)
                except RuntimeError as error:
                    raise ModelError(
                        f"{self.folder.path}: the weights of fold {fold} aren't those of the network in model.json"
                    ) from error
                engine = make_engine(
                    network, self.recipe, options.engine, options.precision, options.device, leave_head=leave_head
                )
                cascaded = self.stage1 is not None
                self._engines[key] = Stage1Engine(engine, stage1_values(self.recipe)) if cascaded else engine
            engines.append(self._engines[key])
        return engines

    def prepare(self, volume: Volume, options: Options) -> Ready:
        """First stage of `segment`: plan the memory, preprocess.

        It doesn't use the network: one thread may prepare a scan while another runs the model.

        Raises
        ------
        InputError
            Code ``channels``: another number of channels than the model's.
        RefusalError
            Code ``memory``: it needs more than `options` allow.
        """
        if volume.channels != len(self.recipe.channels):
            names = ", ".join(channel.name for channel in self.recipe.channels)
            raise InputError(
                f"{volume.channels} channels; the model takes {len(self.recipe.channels)} ({names})", code="channels"
            )
        plans = self._plans(volume, options)
        if options.planned is not None:
            options.planned(max(plans, key=lambda plan: plan.total))
        start = time.perf_counter()
        # Matrix products differ in their last bits between numbers of threads, and beside a network there is one.
        with one_thread():
            prepared = prepare(volume, (self.stage1 or self).recipe)
        first, *second = plans
        return Ready(volume, prepared, first, {"preprocess": _since(start)}, *second)

    def _plans(self, volume: Volume, options: Options) -> list[Plan]:
        """Memory that the network takes; of a cascade one plan a stage."""
        before = [] if self.stage1 is None else self.stage1._plans(volume, self._options1(options))
        stage1 = None if self.stage1 is None else self.stage1.recipe
        recipe, engines = self._stepped(options), self.engines(options)
        return [*before, plan_memory(volume, recipe, engines, options.memory, stage1)]

    def _options1(self, options: Options) -> Options:
        """How a cascade's first stage is run: labels alone, of every kind, by those of the chosen folds that it has."""
        available = () if self.stage1 is None else self.stage1.folder.manifest.weights
        return replace(
            options,
            folds=tuple(fold for fold in options.folds if fold in available),
            labels=(),
            coarse_to_fine=False,
            probabilities=False,
            entropy=False,
        )

    def run(self, ready: Ready, options: Options) -> Streamed:
        """Second stage: the network, or of a cascade both after each other, and labels on the grid of the volume."""
        if self.stage1 is None or ready.second is None:
            return self._run(ready, options)
        start, staged, options1 = time.perf_counter(), options.staged or (lambda _: None), self._options1(options)
        staged("first stage")
        first = self.stage1.run(ready, options1)
        labels = self.stage1.finish(first, options1, None).labels
        with one_thread():
            prepared = prepare_second(ready.volume, labels, self.recipe)
        seconds = {"stage1": _since(start)}
        staged("second stage")
        second = self._run(Ready(ready.volume, prepared, ready.second, {}), options)
        return replace(second, windows=first.windows + second.windows, seconds=seconds | second.seconds)

    def _run(self, ready: Ready, options: Options) -> Streamed:
        mirroring = self.recipe.mirroring.use if options.mirroring is None else options.mirroring
        prepared, engines, start = ready.prepared, self.engines(options), time.perf_counter()
        wanted = {label.value for label in self.wanted(options)}
        windows = 0
        if options.coarse_to_fine:
            prepared, windows = narrowed(prepared, engines, self.recipe, wanted, ready.plan.placement, options.progress)
        coarse_seconds = time.perf_counter() - start
        if self.recipe.output == "softmax" and any(rule.fill_holes for rule in self._rules(options)):
            wanted = {label.value for label in self.recipe.labels}  # a hole is where there is no other label
        streamed = stream(
            prepared,
            engines,
            self._stepped(options),
            ready.volume.source,
            mirrored=self.recipe.mirroring.axes if mirroring else (),
            wanted=wanted,
            kinds=self._kinds(options),
            placement=ready.plan.placement,
            progress=options.progress,
        )
        streamed.windows += windows
        streamed.seconds["network"] = round(streamed.seconds["network"] + coarse_seconds, 4)
        return streamed

    def _kinds(self, options: Options) -> MapKinds:
        """The maps that `options` ask for."""
        labels = frozenset(label.value for label in self.wanted(options)) if options.probabilities else frozenset[int]()
        return MapKinds(labels, options.entropy)

    def _stepped(self, options: Options) -> Recipe:
        """The recipe with the step that `options` choose."""
        if options.tile_step is None:
            return self.recipe
        return self.recipe.model_copy(update={"tile_step": options.tile_step})

    def _rules(self, options: Options) -> list[PostprocessRule]:
        """The recipe's rules for the labels that `options` choose."""
        values = [label.value for label in self.wanted(options)]
        return [rule for rule in self.recipe.postprocess if rule.label in values]

    def finish(self, streamed: Streamed, options: Options, stored: Geometry | None) -> Prediction:
        """Last stage: the recipe's rules; `stored` is the grid of the scan's own slices where the volume's is another.

        Like `prepare` it may go on beside the network.
        """
        start = time.perf_counter()
        labels = apply_rules(streamed.labels, self._rules(options)).only(self.wanted(options))
        if stored is not None:
            labels = on_grid(labels, stored)
        seconds = streamed.seconds | {"postprocess": _since(start)}
        return Prediction(labels, streamed.windows, streamed.quality, streamed.maps, seconds)

    def segment(self, volume: Volume, options: Options) -> Prediction:
        """Segment a volume and say how long each stage took; errors are those of `prepare` and `stream`."""
        ready = self.prepare(volume, options)
        prediction = self.finish(self.run(ready, options), options, volume.source.stored)
        return replace(prediction, seconds=ready.seconds | prediction.seconds)

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
            With as many channels as the model takes.
        mirroring
            Average mirrored passes; None: as the recipe says.
        engine, precision
            What runs the network: ``auto``, ``torch`` or ``openvino``; ``auto``, ``fp32`` or ``bf16``.
        device
            ``cpu``, ``cuda`` or ``mps``.

        Returns
        -------
        LabelVolume
            On the volume's own grid: same shape, same affine. Where the volume was resampled from tilted slices, on
            those.
        """
        options = Options(mirroring=mirroring, engine=engine, precision=precision, device=device)
        return self.segment(volume, options).labels


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
