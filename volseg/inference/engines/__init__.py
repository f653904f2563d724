"""What computes a network's values from a window. An engine is one small class, in a module of its own."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from volseg.inference.engines.head import Head

Precision = Literal["fp32", "bf16"]
#: What may be asked for; ``auto`` is decided in `volseg.inference.engines.choice`.
EngineChoice = Literal["auto", "torch", "openvino"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]


class Engine(Protocol):
    """Values of a batch of windows: logits, or where there is a `head`, what it makes logits of.

    Attributes
    ----------
    name, precision
        Names of the engine and of its precision for ``result.json``.
    note
        Reason why it stands in for another engine, where it does: a flag of the result.
    head
        The network's last layer, where it is left to the caller.
    values_held
        Float32 numbers that are held at once for a voxel of a window.
    """

    name: str
    precision: Precision
    note: str | None
    head: Head | None
    values_held: float

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) float32 to (B, D, H, W, values) float32, both on the CPU."""
