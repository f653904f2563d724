"""The U-Net in a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from volseg.config.section import Count, Positive, Section, Triple


class NetworkConfig(Section):
    """The 3D U-Net. One entry a stage, from full resolution down."""

    features: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 32, 64, 128)
    """Channels of each stage."""
    kernels: tuple[Triple, ...] = ()
    """Kernel of each stage's convolutions, odd; 3x3x3 unless given. 1x3x3 suits thick slices."""
    strides: tuple[Triple, ...] = ()
    """Downsampling on entering each stage; the first is 1x1x1, the others 2x2x2 unless given."""
    convolutions: Count | tuple[Count, ...] = 2
    """Convolutions a stage, on the way down and on the way up; or one number a stage."""
    decoder_convolutions: tuple[Count, ...] = ()
    """Convolutions of each stage on the way up, which has one stage fewer; as `convolutions` unless given."""
    encoder: Literal["convolutions", "residual_blocks"] = "convolutions"
    """Units that `convolutions` counts on the way down: residual_blocks are pairs of convolutions with a shortcut
    (ResNet-D), behind a first convolution of their own.
    """
    downsampling: Literal["max_pool", "strided"] = "max_pool"
    """Max pooling, or a stride in the stage's first convolution."""
    upsampling: Literal["transposed", "interpolation"] = "transposed"
    """Transposed convolution, or linear interpolation with a 1x1x1 convolution."""
    normalisation: Literal["instance", "batch", "group", "none"] = "instance"
    """Normalisation behind each convolution."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of group normalisation."""
    epsilon: Positive = 1e-5
    """Number that is added to the variance in the normalisation."""
    affine: bool = True
    """Whether each channel is scaled and shifted after the normalisation."""
    bias: bool | None = None
    """Whether every convolution has a bias; null: only where no normalisation takes it away, and in the upsampling."""
    activation: Literal["relu", "leaky_relu"] = "leaky_relu"
    """Activation behind each normalisation."""
    slope: Annotated[float, Field(ge=0)] = 0.01
    """Slope of LeakyReLU for negative values."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of channels dropped in training."""
    residual: bool = False
    """Whether each stage's input is added to its output."""
    deep_supervision: bool = True
    """Whether training also compares the outputs of the lower decoder stages with the labels."""
    initialisation: Literal["he", "xavier"] = "he"
    """Initial weights: He (normal, for rectifiers) or Xavier (uniform)."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, more time."""

    @model_validator(mode="after")
    def _stages(self) -> Self:
        stages = len(self.features)
        for name in ("kernels", "strides"):
            given = len(getattr(self, name))
            if given not in (0, stages):
                raise ValueError(f"{name} has {given} entries and features has {stages}; give one a stage")
        if isinstance(self.convolutions, tuple) and len(self.convolutions) != stages:
            raise ValueError(f"convolutions has {len(self.convolutions)} entries and features has {stages}")
        if len(self.decoder_convolutions) not in (0, stages - 1):
            raise ValueError(f"decoder_convolutions has {len(self.decoder_convolutions)} entries, not {stages - 1}")
        if self.residual and self.encoder == "residual_blocks":
            raise ValueError("residual is for an encoder of convolutions: residual_blocks have shortcuts of their own")
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ValueError("kernels must be odd, so that a convolution keeps the size")
        if self.strides and self.strides[0] != (1, 1, 1):
            raise ValueError("the first stage's stride must be 1x1x1")
        if self.normalisation == "group" and any(size % self.groups for size in self.features):
            raise ValueError(f"features {self.features} can't be split into {self.groups} groups")
        return self

    @property
    def stage_kernels(self) -> tuple[Triple, ...]:
        """Kernel of each stage, defaults filled in."""
        return self.kernels or ((3, 3, 3),) * len(self.features)

    @property
    def stage_strides(self) -> tuple[Triple, ...]:
        """Stride of each stage, defaults filled in."""
        return self.strides or ((1, 1, 1), *((2, 2, 2),) * (len(self.features) - 1))

    @property
    def stage_convolutions(self) -> tuple[int, ...]:
        """Convolutions, or residual blocks, of each stage on the way down."""
        given = self.convolutions
        return (given,) * len(self.features) if isinstance(given, int) else given

    @property
    def supervised(self) -> int:
        """Number of outputs in training: with deep supervision each decoder stage but the lowest has one."""
        return max(1, len(self.features) - 2) if self.deep_supervision else 1

    @property
    def stage_decoder_convolutions(self) -> tuple[int, ...]:
        """Convolutions of each stage on the way up, full resolution first."""
        return self.decoder_convolutions or self.stage_convolutions[:-1]
