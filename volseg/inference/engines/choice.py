"""Which engine runs a network, and in which precision.

``auto`` takes what ``benchmarks/inference/engines.py`` found fastest: OpenVINO on a CPU, where it is installed, and
torch elsewhere. It keeps to fp32, whose labels don't depend on what a processor can do: rounding to bf16 brings the
worst of 117 labels to a Dice of 0.993 to fp32, and OpenVINO's own bf16 hasn't been measured against the limit of 0.99.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from volseg.config import Recipe
from volseg.errors import UsageError
from volseg.inference.engines import Engine, EngineChoice, Precision, PrecisionChoice
from volseg.inference.engines.openvino import OpenVinoEngine
from volseg.inference.engines.torch import TorchEngine
from volseg.machine import native_bf16
from volseg.network.unet import UNet


def engine_name(engine: EngineChoice, precision: Precision, device: str) -> Literal["torch", "openvino"]:
    """The engine to use.

    Raises
    ------
    UsageError
        ``openvino`` was asked for, and it isn't installed or can't do that.
    """
    if engine == "torch":
        return "torch"
    problem = None
    if device != "cpu":
        problem = f"OpenVINO runs on the CPU here, not on {device}: give --device cpu or --engine torch"
    elif importlib.util.find_spec("openvino") is None:
        problem = "OpenVINO isn't installed: pip install 'volseg[openvino]', or give --engine torch"
    elif precision == "bf16" and not native_bf16():
        problem = "this processor doesn't compute in bf16: give --precision fp32, or --engine torch, which emulates it"
    if problem is not None and engine == "openvino":
        raise UsageError(f"--engine openvino: {problem}")
    return "openvino" if problem is None else "torch"


def make_engine(
    network: UNet, recipe: Recipe, engine: EngineChoice, precision: PrecisionChoice, device: str, *, leave_head: bool
) -> Engine:
    """An engine for a network with its weights.

    Where OpenVINO can't be loaded or can't compile the network, ``auto`` means torch, and the engine's `note` says why.

    Raises
    ------
    UsageError
        ``openvino`` was asked for, and it isn't there or can't do that.
    """
    exact: Precision = "fp32" if precision == "auto" else precision
    note = None
    if engine_name(engine, exact, device) == "openvino":
        try:
            return OpenVinoEngine(network, network.channels, recipe.window, exact, leave_head=leave_head)
        # What a library raises whose parts don't fit, and what openvino raises of a network.
        except (ImportError, OSError, AttributeError, TypeError, RuntimeError) as error:
            reason = f"OpenVINO can't run this network: {type(error).__name__}: {' '.join(str(error).split())}"
            if engine == "openvino":
                raise UsageError(f"--engine openvino: {reason}; give --engine torch") from error
            note = f"torch instead: {reason}"
    if exact == "bf16" and device == "cpu" and not native_bf16():
        note = "bf16 is emulated: this processor doesn't compute in it, and takes some 30 times as long as in fp32"
    by_torch = TorchEngine(network, exact, device, leave_head=leave_head)
    by_torch.note = note
    return by_torch
