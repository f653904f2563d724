from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from volseg.config import NetworkConfig
from volseg.network.unet import UNet, check_window

ANISOTROPIC: dict[str, Any] = {
    "features": [4, 6, 8],
    "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
}


def network(outputs: int = 3, channels: int = 1, **fields: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(NetworkConfig.model_validate({"features": [4, 6, 8], **fields}), channels, outputs)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        ANISOTROPIC,
        {**ANISOTROPIC, "downsampling": "strided"},
        {"downsampling": "strided", "upsampling": "interpolation"},
        {"normalisation": "batch", "activation": "relu"},
        {"normalisation": "group", "groups": 2},
        {"normalisation": "none", "initialisation": "xavier"},
        {"residual": True, "dropout": 0.2},
        {"convolutions": 1, "deep_supervision": False},
        {"features": [4]},
        {"convolutions": [1, 2, 3], "decoder_convolutions": [1, 2], "bias": True},
        {**ANISOTROPIC, "encoder": "residual_blocks", "downsampling": "strided", "convolutions": [1, 1, 2]},
        {"encoder": "residual_blocks"},
    ],
)
def test_the_output_has_the_inputs_size_and_every_weight_gets_a_gradient(fields: dict[str, Any]) -> None:
    net = network(**fields, channels=2)
    x = torch.randn(2, 2, 4, 8, 12)
    assert net(x).shape == (2, 3, 4, 8, 12)
    torch.stack([out.square().mean() for out in net.supervised(x)]).sum().backward()
    silent = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert silent == []


def test_deep_supervision_gives_an_output_a_decoder_stage_but_the_lowest() -> None:
    net = network(features=[2, 4, 6, 8])
    sizes = [tuple(out.shape[2:]) for out in net.supervised(torch.zeros(1, 1, 16, 24, 8))]
    assert sizes == [(16, 24, 8), (8, 12, 4)]
    assert len(network(deep_supervision=False).supervised(torch.zeros(1, 1, 8, 8, 8))) == 1


def test_the_skip_connections_carry_what_the_bottleneck_loses() -> None:
    """Detail of one voxel can't pass the pooling: a change there reaches the output unpooled."""
    net = network(normalisation="none").eval()
    x = torch.zeros(1, 1, 8, 8, 8)
    changed = x.clone()
    changed[0, 0, 3, 3, 3] = -1.0  # the maximum of every pooling region stays 0 at the input
    difference = (net(changed) - net(x)).abs().sum(1)[0]
    assert difference[3, 3, 3] > 0


def test_two_stages_against_the_same_layers_written_out() -> None:
    """The slow, obvious network: every layer in a line, with the network's own weights."""
    net = network(features=[4, 6]).eval()
    x = torch.randn(1, 1, 4, 6, 8)

    def double(stage: Any, value: torch.Tensor) -> torch.Tensor:
        for block in stage.blocks:
            convolution, norm = block[0], block[1]
            value = nn.functional.conv3d(value, convolution.weight, padding=1)
            value = nn.functional.instance_norm(value, weight=norm.weight, bias=norm.bias)
            value = torch.where(value > 0, value, 0.01 * value)
        return value

    top = double(net.encoder[0], x)
    bottom = double(net.encoder[1], nn.functional.max_pool3d(top, 2))
    up: Any = net.upsampling[0]
    joined = torch.cat([nn.functional.conv_transpose3d(bottom, up.weight, up.bias, stride=2), top], 1)
    last: Any = net.outputs[0]
    expected = torch.einsum("oc,bcdhw->bodhw", last.weight[:, :, 0, 0, 0], double(net.decoder[0], joined))
    torch.testing.assert_close(net(x), expected + last.bias[None, :, None, None, None], atol=1e-5, rtol=1e-4)


def test_sizes_that_do_not_divide_are_refused_with_those_that_would() -> None:
    with pytest.raises(ValueError, match=r"10 x 16 x 3 .* multiple of 4 x 4 x 4; nearest: 8 or 12 by 16 by 4"):
        network()(torch.zeros(1, 1, 10, 16, 3))
    check_window((3, 4, 8), NetworkConfig.model_validate({"features": [2, 2], "strides": [[1, 1, 1], [1, 2, 2]]}))


def test_gradient_checkpointing_changes_no_gradient() -> None:
    x = torch.randn(1, 1, 8, 8, 8)
    gradients = []
    for saves in (False, True):
        net = network(gradient_checkpointing=saves).train()
        net(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters() if parameter.grad is not None])
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, saved)


def test_dropout_acts_in_training_only() -> None:
    net = network(dropout=0.5)
    x = torch.randn(1, 1, 8, 8, 8)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_stages_have_the_number_of_convolutions_that_the_recipe_gives() -> None:
    net: Any = network(convolutions=[1, 2, 3], decoder_convolutions=[3, 1])
    assert [len(stage.blocks) for stage in net.encoder] == [1, 2, 3]
    assert [len(stage.blocks) for stage in net.decoder] == [3, 1]
    net = network(convolutions=[1, 2, 3])
    assert [len(stage.blocks) for stage in net.decoder] == [1, 2]
    net = network(convolutions=[2, 1, 3], encoder="residual_blocks", downsampling="strided")
    assert [len(stage) for stage in net.encoder] == [2, 1, 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"convolutions": [1, 2]}, "convolutions has 2 entries and features has 3"),
        ({"decoder_convolutions": [1, 2, 3]}, "decoder_convolutions has 3 entries, not 2"),
        ({"residual": True, "encoder": "residual_blocks"}, "residual_blocks have shortcuts of their own"),
    ],
)
def test_configurations_that_contradict_themselves(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        network(**fields)


def test_the_names_of_the_weights_stay() -> None:
    """Model folders hold them."""
    names = set(network().state_dict())
    block = {f"blocks.{number}.{leaf}" for number in (0, 1) for leaf in ("0.weight", "1.weight", "1.bias")}
    stages = {f"encoder.{stage}.{name}" for stage in range(3) for name in block}
    stages |= {f"decoder.{stage}.{name}" for stage in range(2) for name in block}
    assert names == stages | {
        f"{layer}.{leaf}" for layer in ("upsampling.0", "upsampling.1", "outputs.0") for leaf in ("weight", "bias")
    }
