"""The network that nnU-Net v2's plans describe, as volseg builds it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from volseg.config import NetworkConfig
from volseg.errors import ModelError
from volseg.models.nnunet_plans import Architecture, StrictPart, Three, checked

Sizes = int | Three
PerStage = int | tuple[int, ...]


class _NormArguments(StrictPart):
    eps: float = 1e-5
    affine: bool | None = None
    momentum: float | None = None
    track_running_stats: None = None


class _ActivationArguments(StrictPart):
    inplace: bool = False
    negative_slope: float = 0.01


class _Arguments(StrictPart):
    """Arguments of PlainConvUNet and ResidualEncoderUNet. Dropout does nothing at inference."""

    n_stages: Annotated[int, Field(ge=2, le=16)]
    features_per_stage: PerStage
    conv_op: Literal["torch.nn.modules.conv.Conv3d", "torch.nn.Conv3d"]
    kernel_sizes: int | tuple[Sizes, ...]
    strides: int | tuple[Sizes, ...]
    n_conv_per_stage: PerStage | None = None
    n_blocks_per_stage: PerStage | None = None
    n_conv_per_stage_decoder: PerStage
    conv_bias: bool = False
    norm_op: str | None = None
    norm_op_kwargs: _NormArguments | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: _ActivationArguments | None = None
    deep_supervision: bool = False
    nonlin_first: Literal[False] = False
    stem_channels: None = None
    bottleneck_channels: None = None


_NORMALISATIONS: dict[str, Literal["instance", "batch", "none"]] = {
    "": "none",
    "InstanceNorm3d": "instance",
    "BatchNorm3d": "batch",
}
_ACTIVATIONS: dict[str, Literal["relu", "leaky_relu"]] = {"ReLU": "relu", "LeakyReLU": "leaky_relu"}
_COUNTS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}


def _last(name: str | None) -> str:
    """Name of a class without its module, which has moved between versions."""
    return (name or "").rpartition(".")[2]


def _spread(value: int | tuple[Any, ...], count: int) -> tuple[Any, ...]:
    return (value,) * count if isinstance(value, int) else value


def _triples(value: int | tuple[Sizes, ...], count: int) -> tuple[Three, ...]:
    return tuple((size,) * 3 if isinstance(size, int) else size for size in _spread(value, count))


def network_config(architecture: Architecture, where: str) -> NetworkConfig:
    """The network, without its outputs for deep supervision.

    Raises
    ------
    ModelError
        A class or an argument that volseg can't follow; the message names it and `where` it stands.
    """
    name = _last(architecture.network_class_name)
    if name not in _COUNTS:
        raise ModelError(f"{where}: the network is a {name}; volseg builds {' and '.join(_COUNTS)}")
    arguments = checked(_Arguments, architecture.arch_kwargs, f"{where}: arch_kwargs")
    normalisation, activation = _last(arguments.norm_op), _last(arguments.nonlin)
    if normalisation not in _NORMALISATIONS or activation not in _ACTIVATIONS:
        raise ModelError(
            f"{where}: norm_op {arguments.norm_op} and nonlin {arguments.nonlin}; volseg knows"
            f" {', '.join(filter(None, _NORMALISATIONS))} and {', '.join(_ACTIVATIONS)}"
        )
    stages, counts = arguments.n_stages, getattr(arguments, _COUNTS[name])
    if counts is None:
        raise ModelError(f"{where}: arch_kwargs lack {_COUNTS[name]}")
    norm = arguments.norm_op_kwargs or _NormArguments()
    rectifier = arguments.nonlin_kwargs or _ActivationArguments()
    return NetworkConfig(
        features=_spread(arguments.features_per_stage, stages),
        kernels=_triples(arguments.kernel_sizes, stages),
        strides=_triples(arguments.strides, stages),
        convolutions=_spread(counts, stages),
        # nnU-Net counts these from the lowest stage up
        decoder_convolutions=_spread(arguments.n_conv_per_stage_decoder, stages - 1)[::-1],
        encoder="residual_blocks" if name == "ResidualEncoderUNet" else "convolutions",
        downsampling="strided",
        normalisation=_NORMALISATIONS[normalisation],
        epsilon=norm.eps,
        # torch's own defaults where the plans leave it open
        affine=normalisation == "BatchNorm3d" if norm.affine is None else norm.affine,
        bias=arguments.conv_bias,
        activation=_ACTIVATIONS[activation],
        slope=rectifier.negative_slope,
        deep_supervision=False,
    )
