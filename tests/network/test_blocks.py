from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from volseg.config import NetworkConfig
from volseg.network.blocks import (
    ConvolutionBlock,
    ResidualBlock,
    Stage,
    initialise,
    normalisation,
    upsampling,
)


def test_instance_normalisation_is_that_of_each_channel_of_each_case() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 6, generator=generator) * 3 + 1
    got = normalisation(NetworkConfig(), 3)(x)
    for case in range(2):
        for channel in range(3):
            values = x[case, channel].double()
            expected = (values - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-5)
            torch.testing.assert_close(got[case, channel].double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(got, nn.InstanceNorm3d(3, affine=True)(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "kind"), [("batch", nn.BatchNorm3d), ("group", nn.GroupNorm), ("none", nn.Identity)])
def test_the_other_normalisations(name: str, kind: type[nn.Module]) -> None:
    config = NetworkConfig.model_validate({"features": [4], "normalisation": name, "groups": 2})
    layer = normalisation(config, 4)
    assert isinstance(layer, kind)
    assert getattr(layer, "num_groups", 2) == 2


@pytest.mark.parametrize("kind", ["transposed", "interpolation"])
def test_upsampling_multiplies_each_axis_by_its_stride(kind: str) -> None:
    config = NetworkConfig.model_validate({"upsampling": kind})
    assert upsampling(config, (4, 2), (1, 2, 3))(torch.zeros(1, 4, 3, 4, 5)).shape == (1, 2, 3, 8, 15)


def test_residual_stage_with_zero_weights_is_its_input() -> None:
    stage = Stage(NetworkConfig(residual=True, normalisation="none"), (3, 3), (3, 3, 3))
    for parameter in stage.blocks.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 3, 4, 4, 4)
    assert torch.equal(stage(x), x)


def test_residual_stage_brings_its_input_to_the_outputs_shape() -> None:
    stage = Stage(NetworkConfig(residual=True), (2, 4), (1, 3, 3), (1, 2, 2))
    assert stage(torch.zeros(1, 2, 3, 8, 6)).shape == (1, 4, 3, 4, 3)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        # He: gain sqrt(2 / (1 + slope^2)) over sqrt(fan-in), 64 channels x 27 positions
        ("he", math.sqrt(2 / (1 + 0.01**2)) / math.sqrt(64 * 27)),
        # Glorot: uniform of half-width sqrt(6 / (fan-in + fan-out)), whose deviation is that over sqrt(3)
        ("xavier", math.sqrt(6 / (64 * 27 + 32 * 27)) / math.sqrt(3)),
    ],
)
def test_initialisation_has_the_spread_of_its_formula(scheme: str, expected: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv3d(64, 32, 3)
    initialise(layer, NetworkConfig.model_validate({"initialisation": scheme}))
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_residual_block_against_the_same_layers_written_out() -> None:
    """ResNet-D: pooled and projected shortcut, the activation behind the sum."""
    torch.manual_seed(0)
    config = NetworkConfig(bias=True, slope=0.3, epsilon=1e-2)
    block: Any = ResidualBlock(config, (2, 3), (1, 3, 3), (1, 2, 2))
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 2, 3, 6, 4)

    def normalised(value: torch.Tensor, norm: Any) -> torch.Tensor:
        return nn.functional.instance_norm(value, weight=norm.weight, bias=norm.bias, eps=1e-2)

    def rectified(value: torch.Tensor) -> torch.Tensor:
        return torch.where(value > 0, value, 0.3 * value)

    first, second = block.blocks
    value = nn.functional.conv3d(x, first[0].weight, first[0].bias, stride=(1, 2, 2), padding=(0, 1, 1))
    value = rectified(normalised(value, first[1]))
    value = normalised(nn.functional.conv3d(value, second[0].weight, second[0].bias, padding=(0, 1, 1)), second[1])
    pooled = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    _, projection, norm = block.shortcut
    projected = normalised(torch.einsum("oc,bcdhw->bodhw", projection.weight[:, :, 0, 0, 0], pooled), norm)
    torch.testing.assert_close(block(x), rectified(value + projected), atol=1e-5, rtol=1e-4)
    assert projection.bias is None


def test_residual_block_of_one_shape_has_an_identity_for_a_shortcut() -> None:
    block = ResidualBlock(NetworkConfig(normalisation="none", activation="relu"), (2, 2), (3, 3, 3))
    for parameter in block.blocks.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 3, 4, 5)
    assert torch.equal(block(x), x.clamp(min=0))


@pytest.mark.parametrize(
    ("bias", "convolution", "up"), [(None, False, True), (True, True, True), (False, False, False)]
)
def test_bias(bias: bool | None, convolution: bool, up: bool) -> None:
    config = NetworkConfig(bias=bias)
    names = dict(ConvolutionBlock(config, (1, 2), (3, 3, 3)).named_parameters())
    assert ("0.bias" in names) == convolution
    assert ("bias" in dict(upsampling(config, (2, 1), (2, 2, 2)).named_parameters())) == up


@pytest.mark.parametrize("kind", ["instance", "group", "batch"])
def test_normalisation_has_its_epsilon_and_may_lack_scale_and_shift(kind: str) -> None:
    layer: Any = normalisation(
        NetworkConfig.model_validate({"features": [4], "normalisation": kind, "groups": 2, "epsilon": 0.5}), 4
    )
    assert layer.eps == 0.5
    plain = NetworkConfig.model_validate({"features": [4], "normalisation": kind, "groups": 2, "affine": False})
    assert list(normalisation(plain, 4).parameters()) == []
