"""In what precision the network is trained. Weights, loss and optimiser are float32 in each; autocast does the rest."""

from __future__ import annotations

from typing import Literal

import torch

from volseg.config import TrainingPrecision
from volseg.errors import UsageError

Precision = Literal["fp32", "bf16", "fp16"]

#: What autocast computes in. Of fp32 it is switched off.
AUTOCAST: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: TrainingPrecision, device: str, *, native_bf16: bool) -> Precision:
    """Precision of a training on a device; auto is the fastest that the device computes in itself.

    Parameters
    ----------
    wanted
        Precision that the recipe asks for.
    device
        Name of the device: ``cpu``, ``cuda`` or ``mps``.
    native_bf16
        Whether the processor computes in bf16 itself. One that doesn't emulates it, many times slower.

    Raises
    ------
    UsageError
        fp16 elsewhere than on an NVIDIA or AMD GPU: processors convert to it and back at each layer.
    """
    if wanted == "fp16" and device != "cuda":
        raise UsageError(f"the recipe's precision fp16 is for --device cuda; bf16, fp32 and auto train on {device} too")
    if wanted != "auto":
        return wanted
    if device == "cpu":
        return "bf16" if native_bf16 else "fp32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"
