"""3D U-Net (Çiçek et al., arXiv:1606.06650), configured by `volseg.config.NetworkConfig`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from volseg.config import NetworkConfig, Recipe
from volseg.network.blocks import ConvolutionBlock, Stage, encoder_stage, initialise, total_stride, upsampling


def check_window(window: Sequence[int], config: NetworkConfig) -> None:
    """Refuse sizes that the network's strides don't divide.

    Raises
    ------
    ValueError
        It names the nearest sizes that would do, axis by axis.
    """
    multiples = total_stride(config.stage_strides)
    if any(size % multiple for size, multiple in zip(window, multiples, strict=True)):
        nearest = []
        for size, multiple in zip(window, multiples, strict=True):
            lower = size // multiple * multiple
            fits = [lower] if lower == size else [value for value in (lower, lower + multiple) if value]
            nearest.append(" or ".join(map(str, fits)))
        raise ValueError(
            f"size {' x '.join(map(str, window))} can't be halved through all stages: it must be a multiple of"
            f" {' x '.join(map(str, multiples))}; nearest: {' by '.join(nearest)}"
        )


def stage1_values(recipe: Recipe) -> tuple[int, ...]:
    """Values of the first stage's labels that a cascade's second stage sees, each as a channel of its own, a mask."""
    values = {value for label in recipe.labels for value in label.members or (label.value,)}
    return tuple(sorted(values - {0}))


class UNet(nn.Module):
    """Encoder, decoder with skip connections, and a 1x1x1 output layer.

    Parameters
    ----------
    config
        Stages and layers.
    channels
        Input channels.
    outputs
        Output channels: one a class (softmax, with the background) or one a region (sigmoid).
    """

    def __init__(self, config: NetworkConfig, channels: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        features, kernels, strides = config.features, config.stage_kernels, config.stage_strides
        pooled = config.downsampling == "max_pool"
        self.stem: nn.Module = nn.Identity()
        if config.encoder == "residual_blocks":
            self.stem = ConvolutionBlock(config, (channels, features[0]), kernels[0])
            channels = features[0]
        self.encoder = nn.ModuleList()
        self.pooling = nn.ModuleList()
        for stage, count in enumerate(config.stage_convolutions):
            into = channels if stage == 0 else features[stage - 1]
            stride = (1, 1, 1) if pooled else strides[stage]
            self.encoder.append(encoder_stage(config, (into, features[stage]), kernels[stage], stride, count))
            halves = pooled and max(strides[stage]) > 1
            self.pooling.append(nn.MaxPool3d(strides[stage], strides[stage]) if halves else nn.Identity())
        self.upsampling = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.outputs = nn.ModuleList()
        for stage, count in enumerate(config.stage_decoder_convolutions):
            up = upsampling(config, (features[stage + 1], features[stage]), strides[stage + 1])
            self.upsampling.append(up)
            both = (2 * features[stage], features[stage])
            self.decoder.append(Stage(config, both, kernels[stage], convolutions=count))
        for stage in range(config.supervised):
            self.outputs.append(nn.Conv3d(features[stage], outputs, 1))
        initialise(self, config)

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, cascaded: bool = False) -> UNet:
        """The network that a recipe describes; `cascaded`: a second stage, which also sees the labels of the first."""
        labels = len(stage1_values(recipe)) if cascaded else 0
        return cls(recipe.network, len(recipe.channels) + labels, recipe.outputs)

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        saves_memory = self.config.gradient_checkpointing and self.training and torch.is_grad_enabled()
        out: Tensor = checkpoint(stage, x, use_reentrant=False) if saves_memory else stage(x)
        return out

    def decoded(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Features of each decoder stage, full resolution first."""
        check_window(x_BCDHW.shape[2:], self.config)
        skips = []
        x = self.stem(x_BCDHW)
        for pool, stage in zip(self.pooling, self.encoder, strict=True):
            x = self._run(stage, pool(x))
            skips.append(x)
        decoded = []
        for level in reversed(range(len(self.decoder))):
            x = torch.cat([self.upsampling[level](x), skips[level]], dim=1)
            x = self._run(self.decoder[level], x)
            decoded.append(x)
        return decoded[::-1] or skips

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """Logits at full resolution.

        Parameters
        ----------
        x_BCDHW
            Input whose sizes the strides divide.

        Returns
        -------
        Tensor
            (B, outputs, D, H, W).

        Raises
        ------
        ValueError
            Sizes that don't divide; it names those that would.
        """
        logits: Tensor = self.outputs[0](self.decoded(x_BCDHW)[0])
        return logits

    def supervised(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Logits of every supervised stage, full resolution first; one entry without deep supervision."""
        return [head(x) for head, x in zip(self.outputs, self.decoded(x_BCDHW), strict=False)]
