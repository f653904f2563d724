"""Parts of the U-Net.

Tensors are (B, C, D, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from volseg.config import NetworkConfig, Triple
from volseg.network.convolution import Convolution
from volseg.network.normalisation import GroupNorm


def normalisation(config: NetworkConfig, channels: int) -> nn.Module:
    """Normalisation layer for `channels`.

    Instance normalisation is group normalisation with one group a channel: the same numbers, and torch's kernel for
    it keeps channels-last memory as it is where that of InstanceNorm3d copies.
    """
    match config.normalisation:
        case "instance":
            return GroupNorm(channels, channels, config.epsilon, config.affine)
        case "group":
            return GroupNorm(config.groups, channels, config.epsilon, config.affine)
        case "batch":
            return nn.BatchNorm3d(channels, config.epsilon, affine=config.affine)
        case "none":
            return nn.Identity()


def activation(config: NetworkConfig) -> nn.Module:
    """Activation layer."""
    return nn.ReLU(inplace=True) if config.activation == "relu" else nn.LeakyReLU(config.slope, inplace=True)


class ConvolutionBlock(nn.Sequential):
    """Convolution, normalisation, dropout, activation; a stride of 1 keeps the size.

    Without `activated` it ends with the normalisation.
    """

    def __init__(
        self,
        config: NetworkConfig,
        channels: tuple[int, int],
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        *,
        activated: bool = True,
    ) -> None:
        # A normalisation takes the mean away, and a bias with it.
        bias = config.normalisation == "none" if config.bias is None else config.bias
        parts: list[nn.Module] = [Convolution(*channels, kernel, stride, bias=bias)]
        parts.append(normalisation(config, channels[1]))
        if config.dropout and activated:
            parts.append(nn.Dropout3d(config.dropout))
        super().__init__(*parts, *([activation(config)] if activated else []))


class ResidualBlock(nn.Module):
    """Two convolutions, the first with `stride`, and a shortcut (ResNet-D; He et al., arXiv:1812.01187, figure 2c).

    The shortcut is average pooling and a normalised 1x1x1 convolution where the shapes differ; the activation comes
    after the sum.
    """

    def __init__(
        self, config: NetworkConfig, channels: tuple[int, int], kernel: Triple, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        into, out = channels
        self.blocks = nn.Sequential(
            ConvolutionBlock(config, channels, kernel, stride),
            ConvolutionBlock(config, (out, out), kernel, activated=False),
        )
        parts: list[nn.Module] = []
        if max(stride) > 1:
            parts.append(nn.AvgPool3d(stride, stride))
        if into != out:
            parts += [nn.Conv3d(into, out, 1, bias=False), normalisation(config, out)]
        self.shortcut = nn.Sequential(*parts)
        self.activation = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C', D / stride, H / stride, W / stride)."""
        out: Tensor = self.activation(self.blocks(x) + self.shortcut(x))
        return out


class Stage(nn.Module):
    """The convolutions of one stage, the first with `stride`; with residual, the stage's input is added to its output.

    The input is brought to the output's shape by average pooling and a 1x1x1 convolution where they differ.
    """

    def __init__(
        self,
        config: NetworkConfig,
        channels: tuple[int, int],
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        convolutions: int = 2,
    ) -> None:
        super().__init__()
        into, out = channels
        blocks = [ConvolutionBlock(config, (into, out), kernel, stride)]
        blocks += [ConvolutionBlock(config, (out, out), kernel) for _ in range(convolutions - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.shortcut: nn.Module | None = None
        if config.residual:
            parts: list[nn.Module] = []
            if max(stride) > 1:
                parts.append(nn.AvgPool3d(stride, stride))
            if into != out:
                parts.append(nn.Conv3d(into, out, 1, bias=False))
            self.shortcut = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C', D / stride, H / stride, W / stride)."""
        out: Tensor = self.blocks(x)
        return out if self.shortcut is None else out + self.shortcut(x)


def encoder_stage(
    config: NetworkConfig, channels: tuple[int, int], kernel: Triple, stride: Triple, count: int
) -> nn.Module:
    """Layer of one stage on the way down: `count` convolutions or residual blocks."""
    if config.encoder == "convolutions":
        return Stage(config, channels, kernel, stride, count)
    into, out = channels
    rest = [ResidualBlock(config, (out, out), kernel) for _ in range(count - 1)]
    return nn.Sequential(ResidualBlock(config, (into, out), kernel, stride), *rest)


def upsampling(config: NetworkConfig, channels: tuple[int, int], stride: Triple) -> nn.Module:
    """Layer that makes each axis `stride` times larger."""
    if config.upsampling == "transposed":
        return nn.ConvTranspose3d(*channels, stride, stride, bias=config.bias is not False)
    factors = tuple(float(step) for step in stride)
    return nn.Sequential(
        nn.Conv3d(*channels, 1, bias=config.bias is not False),
        nn.Upsample(scale_factor=factors, mode="trilinear", align_corners=False),
    )


def initialise(module: nn.Module, config: NetworkConfig) -> None:
    """Initial weights of every convolution below `module`; biases are 0.

    He et al., arXiv:1502.01852, eq. 14-15 (normal, fan-in, the slope of the rectifier taken into account), or Glorot
    & Bengio 2010, eq. 16 (uniform).
    """
    slope = config.slope if config.activation == "leaky_relu" else 0.0
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            if config.initialisation == "he":
                nn.init.kaiming_normal_(layer.weight, a=slope)
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def total_stride(strides: Sequence[Triple]) -> Triple:
    """Product of the strides of all stages: what an input's sizes must be multiples of."""
    d, h, w = torch.tensor(strides).prod(0).tolist()
    return d, h, w
