"""The network by OpenVINO against torch in float64, for every kind of layer."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from volseg.config import NetworkConfig
from volseg.inference.engines.openvino import OpenVinoEngine, library
from volseg.inference.engines.openvino_graph import Graph
from volseg.network.unet import UNet

ANISOTROPIC: dict[str, Any] = {
    "features": [4, 6, 8],
    "kernels": [[1, 3, 3], [3, 3, 5], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 1]],
}
WINDOW = (8, 4, 12)


def network(channels: int = 1, **fields: Any) -> UNet:
    """A network whose every number is random, also those that are 0 or 1 before training."""
    torch.manual_seed(0)
    net = UNet(NetworkConfig.model_validate({"features": [4, 6, 8], **fields}), channels, 3)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.GroupNorm | nn.BatchNorm3d) and layer.weight is not None:
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_()
            if isinstance(layer, nn.BatchNorm3d):
                layer.get_buffer("running_mean").normal_()
                layer.get_buffer("running_var").uniform_(0.5, 2)
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) and layer.bias is not None:
                layer.bias.normal_()
    return net.eval()


def scans(channels: int = 1, count: int = 1) -> Tensor:
    """Noise about a mean that is far from 0."""
    return torch.randn(count, channels, *WINDOW, generator=torch.Generator().manual_seed(1)) + 5


def assert_as_torch(net: UNet, channels: int) -> None:
    x = scans(channels, 2)
    with torch.inference_mode():
        expected = copy.deepcopy(net).double()(x.double()).movedim(1, -1)
    found = OpenVinoEngine(net, channels, WINDOW)(x)
    assert found.shape == (2, *WINDOW, 3)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        ANISOTROPIC,
        {**ANISOTROPIC, "downsampling": "strided", "affine": False},
        {**ANISOTROPIC, "upsampling": "interpolation"},
        {"normalisation": "batch", "activation": "relu"},
        {"normalisation": "batch", "affine": False},
        {"normalisation": "group", "groups": 2, "epsilon": 0.1},
        {"normalisation": "group", "groups": 2, "affine": False},
        {"normalisation": "none", "slope": 0.3},
        {"residual": True, "dropout": 0.2, "downsampling": "strided", "epsilon": 0.1},
        {"residual": True, "bias": False},
        {"features": [4]},
        {"convolutions": [1, 2, 3], "decoder_convolutions": [1, 2], "bias": True, "deep_supervision": False},
        {**ANISOTROPIC, "encoder": "residual_blocks", "downsampling": "strided", "convolutions": [1, 1, 2]},
        {"encoder": "residual_blocks", "dropout": 0.2},
    ],
    ids=str,
)
def test_logits_are_torchs(fields: dict[str, Any]) -> None:
    assert_as_torch(network(2, **fields), 2)


strides = st.tuples(*[st.sampled_from([1, 2])] * 3)
kernels = st.tuples(*[st.sampled_from([1, 3])] * 3)


@settings(max_examples=10, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "kernels": st.tuples(kernels, kernels),
            "strides": st.tuples(st.just((1, 1, 1)), strides),
            "convolutions": st.sampled_from([1, 2]),
            "encoder": st.sampled_from(["convolutions", "residual_blocks"]),
            "downsampling": st.sampled_from(["max_pool", "strided"]),
            "upsampling": st.sampled_from(["transposed", "interpolation"]),
            "normalisation": st.sampled_from(["instance", "batch", "group", "none"]),
            "affine": st.booleans(),
            "bias": st.sampled_from([None, True, False]),
            "activation": st.sampled_from(["relu", "leaky_relu"]),
        }
    )
)
def test_logits_are_torchs_whatever_is_combined(fields: dict[str, Any]) -> None:
    assert_as_torch(network(1, features=[2, 4], groups=2, **fields), 1)


def test_the_head_that_is_left_makes_the_same_logits() -> None:
    net, x = network(), scans()
    whole, left = OpenVinoEngine(net, 1, WINDOW), OpenVinoEngine(net, 1, WINDOW, leave_head=True)
    assert whole.head is None
    assert left.head is not None
    features = left(x)
    assert features.shape == (1, *WINDOW, 4)
    torch.testing.assert_close(left.head(features), whole(x), rtol=1e-4, atol=1e-4)


def test_a_window_gives_the_same_bytes_again_and_whatever_goes_with_it() -> None:
    x = scans(count=3)
    engine, other = OpenVinoEngine(network(), 1, WINDOW), OpenVinoEngine(network(), 1, WINDOW)
    found = engine(x)
    assert torch.equal(found, engine(x))
    assert torch.equal(found, other(x))
    for number in range(3):
        assert torch.equal(engine(x[number : number + 1])[0], found[number])


def test_what_was_given_out_is_not_overwritten() -> None:
    engine = OpenVinoEngine(network(), 1, WINDOW)
    first = engine(scans())
    kept = first.clone()
    engine(scans() * 3)
    assert torch.equal(first, kept)


def test_it_takes_as_many_threads_as_torch() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            compiled = OpenVinoEngine(network(), 1, WINDOW)._request.get_compiled_model()
            assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    finally:
        torch.set_num_threads(before)


def test_a_layer_that_no_network_of_ours_has_is_refused() -> None:
    with pytest.raises(TypeError, match="Softmax"):
        Graph(library().opset13).layer(nn.Softmax(1), None)


SILENT = """
import socket, sys
def refused(*_, **__):
    raise AssertionError("the network is asked")
socket.getaddrinfo = socket.socket.connect = socket.socket.sendto = refused
from volseg.inference.engines.openvino import library
library()
assert "openvino_telemetry" not in sys.modules
import openvino
assert openvino.convert_model
import openvino_telemetry
"""


def test_nothing_is_sent_and_nothing_is_written(tmp_path: Path) -> None:
    # Python's import of openvino alone writes intel/openvino_ga_cid into the home directory, and asks for a server.
    environment = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PATH": os.environ["PATH"]}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", SILENT], check=True, cwd=root, env=environment)
    assert list(tmp_path.iterdir()) == []
