"""The engines of a model folder, each loaded once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from volseg.errors import ModelError
from volseg.inference.engines import Engine, EngineChoice, PrecisionChoice
from volseg.inference.engines.choice import make_engine
from volseg.inference.engines.head import leaves_head
from volseg.inference.engines.stage1 import Stage1Engine
from volseg.models.folder import ModelFolder
from volseg.network.unet import UNet, stage1_values


class Engines:
    """What runs a model's folds; any thread may ask for them.

    Parameters
    ----------
    folder
        The model folder. Where it has a first stage, its network sees that one's labels too.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._loaded: dict[tuple[str, EngineChoice, PrecisionChoice, str, bool], Engine] = {}

    def of(self, folds: Sequence[str], engine: EngineChoice, precision: PrecisionChoice, device: str) -> list[Engine]:
        """One engine a fold.

        Raises
        ------
        ModelError
            Weights that are absent, were changed, or aren't those of the recipe's network.
        UsageError
            An engine that isn't there or can't do that.
        """
        leave_head = leaves_head(self._folder.manifest.recipe, len(folds))
        with self._lock:
            for fold in folds:
                key = fold, engine, precision, device, leave_head
                if key not in self._loaded:
                    self._loaded[key] = self._load(*key)
            return [self._loaded[fold, engine, precision, device, leave_head] for fold in folds]

    def _load(
        self, fold: str, engine: EngineChoice, precision: PrecisionChoice, device: str, leave_head: bool
    ) -> Engine:
        recipe, cascaded = self._folder.manifest.recipe, self._folder.stage1 is not None
        # Without memory at first: random weights take a while, and are thrown away.
        with torch.device("meta"):
            network = UNet.from_recipe(recipe, cascaded=cascaded)
        try:
            network.load_state_dict(self._folder.weights(fold), assign=True)
        except RuntimeError as error:
            raise ModelError(
                f"{self._folder.path}: the weights of fold {fold} aren't those of the network in model.json"
            ) from error
        made = make_engine(network, recipe, engine, precision, device, leave_head=leave_head)
        return Stage1Engine(made, stage1_values(recipe)) if cascaded else made
