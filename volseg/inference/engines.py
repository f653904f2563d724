"""What computes logits from a window. An engine is one small class."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from volseg.network.unet import UNet

Precision = Literal["fp32", "bf16"]


class Engine(Protocol):
    """Logits of a batch of windows."""

    name: str
    precision: Precision

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) float32 to (B, outputs, D, H, W) float32, both on the CPU."""


def native_bf16() -> bool:
    """Whether this processor computes in bf16 itself; where it doesn't, torch's emulation is 30 times slower."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class TorchEngine:
    """A network run by torch, channels last.

    Parameters
    ----------
    network
        Moved to `device` and to evaluation mode.
    precision
        bf16 runs under autocast.
    device
        ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """

    name = "torch"

    def __init__(self, network: UNet, precision: Precision = "fp32", device: str = "cpu") -> None:
        self.precision: Precision = precision
        self.device = torch.device(device)
        network.eval()
        self.network = network.to(device=self.device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        """Logits, as `Engine` says."""
        x = x_BCDHW.to(self.device).contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = self.network(x)
        return logits.float().cpu()
