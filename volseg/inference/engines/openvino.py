"""A network run by OpenVINO on the CPU."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volseg.geometry import Shape
from volseg.inference.engines import Precision
from volseg.inference.engines.head import Head
from volseg.inference.engines.openvino_graph import openvino_model
from volseg.network.unet import UNet

#: Float32 values that OpenVINO holds at once for a voxel of a window, in multiples of the network's first features, and
#: of its outputs where it gives logits. Measured with 8 to 32 features and 3 and 118 outputs: 6.1 for features; 3.4 and
#: twice the outputs for logits; residual blocks take one more.
FEATURES_HELD, LOGITS_HELD, OUTPUTS_HELD = 6.2, 3.6, 2.1

_TELEMETRY = "openvino_telemetry"


@functools.cache
def library() -> Any:
    """The openvino module, without its telemetry.

    Importing openvino sends a request over the network and writes into the home directory, unless that was refused
    before. Its telemetry is a package of its own, which openvino does without where it is absent, as it is here for
    the time of the import.

    Raises
    ------
    ImportError
        OpenVINO isn't installed, or its libraries can't be loaded.
    """
    absent = {} if _TELEMETRY in sys.modules else {_TELEMETRY: None}
    sys.modules |= absent  # type: ignore[arg-type]
    try:
        import openvino
    finally:
        for name in absent:
            del sys.modules[name]
    return openvino


@functools.cache
def _core() -> Any:
    return library().Core()


class OpenVinoEngine:
    """A network run by OpenVINO, one window after another, on as many threads as torch has when it is made.

    Compiling takes 0.1 to 0.2 s, so that nothing is gained by keeping compiled models in files.

    Parameters
    ----------
    network
        The network; its weights are copied.
    channels, window
        Shape of its input.
    precision
        Number format that is asked for: bf16 where `volseg.machine.native_bf16` says so. Elsewhere OpenVINO computes in
        fp32 whatever it is asked for.
    leave_head
        Whether to give the features before the last layer, and that layer as `head`.

    Raises
    ------
    ImportError
        As `library`.
    RuntimeError
        OpenVINO can't compile the network.
    """

    name = "openvino"
    note: str | None = None

    def __init__(
        self,
        network: UNet,
        channels: int,
        window: Shape,
        precision: Precision = "fp32",
        *,
        leave_head: bool = False,
    ) -> None:
        self.precision: Precision = precision
        self.head = Head.of(network.outputs[0]) if leave_head else None
        features, outputs = network.config.features[0], network.outputs[0].get_parameter("weight").shape[0]
        blocks = features * (network.config.encoder == "residual_blocks")
        for_logits = features * LOGITS_HELD + outputs * OUTPUTS_HELD
        self.values_held = blocks + (features * FEATURES_HELD if leave_head else for_logits)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            # Threads that are tied to cores wait for whatever else runs there.
            "ENABLE_CPU_PINNING": False,
        }
        model = openvino_model(library(), network.eval(), channels, window, head=not leave_head)
        self._request = _core().compile_model(model, "CPU", settings).create_infer_request()

    def __call__(self, x_BCDHW: Tensor) -> Tensor:
        """Logits or features, as `volseg.inference.engines.Engine` says."""
        ov, request = library(), self._request
        x = x_BCDHW.contiguous().numpy()
        # numpy asks the system for large pages: of usual ones, taking them anew for each window is 4 % of the time.
        values = np.empty((len(x), *request.model_outputs[0].shape[1:]), np.float32)
        for window in range(len(x)):
            # Both share their memory with OpenVINO: nothing is copied.
            request.set_input_tensor(ov.Tensor(x[window : window + 1], shared_memory=True))
            request.set_output_tensor(ov.Tensor(values[window : window + 1], shared_memory=True))
            request.infer()
        return torch.from_numpy(values)
