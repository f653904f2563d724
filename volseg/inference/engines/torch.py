"""A network run by torch."""

from __future__ import annotations

import torch
from torch import Tensor

from volseg.inference.engines import Precision
from volseg.inference.engines.head import Head
from volseg.network.unet import UNet

#: Float32 values that torch holds at once for a voxel of a window, in multiples of the network's first features and of
#: its outputs: 7.7 and 7.8 measured with 16 and 32 features and 3 outputs; 2.1 with 118 outputs in fp32, 4.1 in
#: bf16, whose logits are there in both precisions.
PER_FEATURE, PER_OUTPUT = 8.0, {"fp32": 2.2, "bf16": 4.2}


class TorchEngine:
    """A network run by torch, channels last.

    Parameters
    ----------
    network
        The network, which is moved to `device` and to evaluation mode.
    precision
        Number format; bf16 runs under autocast.
    device
        Name of the device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
    leave_head
        Whether to give the features before the last layer, and that layer as `head`.
    """

    name = "torch"
    note: str | None = None

    def __init__(
        self, network: UNet, precision: Precision = "fp32", device: str = "cpu", *, leave_head: bool = False
    ) -> None:
        self.precision: Precision = precision
        self.device = torch.device(device)
        self.head = Head.of(network.outputs[0]) if leave_head else None
        outputs = 0 if leave_head else network.outputs[0].get_parameter("weight").shape[0]
        self.values_held = max(network.config.features[0] * PER_FEATURE, outputs * PER_OUTPUT[precision])
        network.eval()
        self.network = network.to(device=self.device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        """Logits or features, as `volseg.inference.engines.Engine` says."""
        x = x_BCDHW.to(self.device).contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            values_BVDHW: Tensor = self.network.decoded(x)[0] if self.head is not None else self.network(x)
        # Free where the network's memory is channels last, as it is on a CPU.
        return values_BVDHW.float().cpu().movedim(1, -1).contiguous()
