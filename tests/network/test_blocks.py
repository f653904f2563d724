from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from volseg.config import NetworkConfig
from volseg.network.blocks import Stage, convolution_size, initialise, normalisation, transposed_size, upsampling


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "expected"),
    [
        (5, 3, 1, 0, 3),  # positions 0, 1, 2
        (5, 3, 1, 1, 5),  # padding of 1 keeps the size
        (5, 3, 2, 1, 3),  # centres 0, 2, 4
        (6, 3, 2, 1, 3),  # centres 0, 2, 4; 6 would need a voxel more
        (7, 2, 2, 0, 3),  # pooling: the seventh voxel is left over
        (8, 2, 2, 0, 4),
        (1, 3, 1, 1, 1),
    ],
)
def test_convolution_and_pooling_sizes_worked_by_hand(
    size: int, kernel: int, stride: int, padding: int, expected: int
) -> None:
    assert convolution_size(size, kernel, stride, padding) == expected
    x = torch.zeros(1, 1, size, size, size)
    assert nn.Conv3d(1, 1, kernel, stride, padding)(x).shape[2:] == (expected,) * 3
    if padding <= kernel // 2:
        assert nn.MaxPool3d(kernel, stride, padding)(x).shape[2:] == (expected,) * 3


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "expected"),
    [
        (3, 2, 2, 0, 6),  # each voxel paints two, side by side
        (3, 3, 1, 0, 5),  # 3 overlapping triples
        (3, 3, 2, 1, 5),  # triples at -1, 1, 3 cut to 0 ... 4
        (1, 4, 2, 0, 4),
    ],
)
def test_transposed_convolution_sizes_worked_by_hand(
    size: int, kernel: int, stride: int, padding: int, expected: int
) -> None:
    assert transposed_size(size, kernel, stride, padding) == expected
    x = torch.zeros(1, 1, size, size, size)
    assert nn.ConvTranspose3d(1, 1, kernel, stride, padding)(x).shape[2:] == (expected,) * 3


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
