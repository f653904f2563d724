"""nnU-Net v2's plans.json and dataset.json, and the recipe that says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from volseg.config import ChannelConfig, IntensityConfig, LabelConfig, ResamplingConfig, validation_problem
from volseg.errors import ModelError
from volseg.labels.canvas import any_colour

#: DICOM's terms for the channel names that nnU-Net users give most; another name says nothing sure.
_MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT"}
#: How the readers of nnU-Net lay a scan out: its axes D, H, W before `transpose_forward`.
_READERS = {
    "NibabelIOWithReorient": ("", "SAR"),
    "SimpleITKIOWithReorient": ("", "SAR"),
    "SimpleITKIO": ("stored-", "KJI"),
    "NibabelIO": ("stored-", "KJI"),
}
#: nnU-Net divides by no smaller standard deviation.
_SMALLEST_STD = 1e-8

Part = TypeVar("Part", bound="ForeignPart")
Three = tuple[int, int, int]


class ForeignPart(BaseModel):
    """A part of a foreign file: what volseg reads of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StrictPart(ForeignPart):
    """A part in which every key changes the numbers: one that isn't known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resampling(StrictPart):
    """Arguments of nnU-Net's resampling function."""

    is_seg: Literal[False] = False
    order: Literal[1, 3]
    order_z: Literal[0] = 0
    force_separate_z: bool | None = None


class LabelResampling(StrictPart):
    """Its arguments for labels."""

    is_seg: Literal[True]
    order: Literal[1]
    order_z: Literal[0] = 0
    force_separate_z: bool | None = None


class Architecture(ForeignPart):
    """The network."""

    network_class_name: str
    arch_kwargs: dict[str, Any]


class Configuration(ForeignPart):
    """One configuration, its ancestors merged in."""

    preprocessor_name: Literal["DefaultPreprocessor"] = "DefaultPreprocessor"
    patch_size: Three
    spacing: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    resampling_fn_data: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_data_kwargs: Resampling
    resampling_fn_probabilities: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_probabilities_kwargs: Resampling
    architecture: Architecture
    previous_stage: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _older_keys(cls, content: Any) -> Any:
        """Plans from before the end of 2023 name the network's choices one by one."""
        if not isinstance(content, dict) or "architecture" in content or "UNet_class_name" not in content:
            return content
        kernels = content["conv_kernel_sizes"]
        base, most = content["UNet_base_num_features"], content["unet_max_num_features"]
        residual = content["UNet_class_name"] == "ResidualEncoderUNet"
        arguments = {
            "n_stages": len(kernels),
            "features_per_stage": [min(base * 2**stage, most) for stage in range(len(kernels))],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": kernels,
            "strides": content["pool_op_kernel_sizes"],
            "n_blocks_per_stage" if residual else "n_conv_per_stage": content["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": content["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        }
        architecture = {"network_class_name": content["UNet_class_name"], "arch_kwargs": arguments}
        return {**content, "architecture": architecture}


class LabelConfiguration(ForeignPart):
    """What a cascade's second stage says of its first stage's labels."""

    resampling_fn_seg: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_seg_kwargs: LabelResampling


class Intensities(ForeignPart):
    """Voxel values in the foreground of the training cases, of one channel."""

    mean: FiniteFloat
    std: FiniteFloat
    percentile_00_5: FiniteFloat
    percentile_99_5: FiniteFloat


class Plans(ForeignPart):
    """plans.json."""

    dataset_name: str
    plans_name: str
    image_reader_writer: str
    transpose_forward: Three
    label_manager: Literal["LabelManager"] = "LabelManager"
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[int, Intensities]

    @model_validator(mode="before")
    @classmethod
    def _older_key(cls, content: Any) -> Any:
        older = "foreground_intensity_properties_by_modality"
        if isinstance(content, dict) and older in content:
            return {"foreground_intensity_properties_per_channel": content[older], **content}
        return content


class Dataset(ForeignPart):
    """dataset.json."""

    labels: Annotated[dict[str, int | tuple[int, ...]], Field(min_length=2)]
    channel_names: Annotated[dict[int, str], Field(min_length=1)]
    regions_class_order: tuple[int, ...] | None = None
    num_training: int | None = Field(default=None, alias="numTraining")

    @model_validator(mode="before")
    @classmethod
    def _older_key(cls, content: Any) -> Any:
        if isinstance(content, dict) and "modality" in content:
            return {"channel_names": content["modality"], **content}
        return content


def checked(kind: type[Part], content: Any, where: str) -> Part:
    """`content` as a part of a foreign file.

    Raises
    ------
    ModelError
        A key that is absent, or a value that volseg can't follow; the message names it and `where` it stands.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ModelError(f"{where}: {validation_problem(error)}") from error
    except (KeyError, TypeError) as error:
        raise ModelError(f"{where}: lacks {error}") from error


def configuration(plans: Plans, name: str, path: Path) -> Configuration:
    """One configuration of the plans, with what it inherits.

    Raises
    ------
    ModelError
        There is none of that name, or it is one that volseg can't run: 2D, or one with a choice that isn't known.
    """
    merged: dict[str, Any] = {}
    visited: list[str] = []
    following: str | None = name
    while following is not None:
        if following not in plans.configurations or following in visited:
            raise ModelError(
                f"{path}: has no configuration {following!r} that ends; it has {list(plans.configurations)}"
            )
        visited.append(following)
        merged = {**plans.configurations[following], **merged}
        following = plans.configurations[following].get("inherits_from")
    if len(merged.get("patch_size") or (0, 0, 0)) != 3:
        raise ModelError(f"{path}: {name} is a 2D configuration, and volseg's networks are 3D; import 3d_fullres")
    where = f"{path}: configurations.{name}"
    config = checked(Configuration, merged, where)
    if config.previous_stage is not None:
        separate = checked(LabelConfiguration, merged, where).resampling_fn_seg_kwargs.force_separate_z
        if separate != config.resampling_fn_data_kwargs.force_separate_z:
            raise ModelError(f"{where}: resampling_fn_seg_kwargs: force_separate_z {separate} isn't that of the images")
    return config


def orientation(plans: Plans, path: Path) -> str:
    """The recipe's orientation for the plans' reader and transposition.

    nnU-Net's arrays are (z, y, x) of the file, or of the file turned to RAS+; `transpose_forward` permutes them.

    Raises
    ------
    ModelError
        A reader of other files than 3D medical images.
    """
    if plans.image_reader_writer not in _READERS:
        raise ModelError(
            f"{path}: the model reads images with {plans.image_reader_writer}; volseg follows {', '.join(_READERS)}"
        )
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        raise ModelError(f"{path}: transpose_forward {plans.transpose_forward} is not an order of three axes")
    prefix, axes = _READERS[plans.image_reader_writer]
    return prefix + "".join(axes[axis] for axis in plans.transpose_forward)


def resampling(config: Configuration, path: Path) -> ResamplingConfig:
    """How scans are put on the model's grid, and the network's answer back.

    Raises
    ------
    ModelError
        The answer is resampled with other choices than volseg's.
    """
    data, answer = config.resampling_fn_data_kwargs, config.resampling_fn_probabilities_kwargs
    if answer.order != 1 or answer.force_separate_z != data.force_separate_z:
        raise ModelError(
            f"{path}: resampling_fn_probabilities_kwargs: order {answer.order}, force_separate_z"
            f" {answer.force_separate_z}; volseg follows order 1 and what force_separate_z is for images"
        )
    separate: Literal["never", "auto", "always"] = "auto"
    if data.force_separate_z is not None:
        separate = "always" if data.force_separate_z else "never"
    return ResamplingConfig(image_order=data.order, separate_axis=separate)


def channels(dataset: Dataset, plans: Plans, config: Configuration, path: Path) -> tuple[ChannelConfig, ...]:
    """Input channels, each with its normalisation.

    Raises
    ------
    ModelError
        A normalisation that isn't known, or another number of them than of channels.
    """
    names = [dataset.channel_names[number] for number in sorted(dataset.channel_names)]
    schemes = list(zip(config.normalization_schemes, config.use_mask_for_norm, strict=False))
    if not len(names) == len(schemes) == len(config.normalization_schemes):
        raise ModelError(
            f"{path}: {len(config.normalization_schemes)} normalization_schemes and {len(config.use_mask_for_norm)}"
            f" use_mask_for_norm for {len(names)} channels"
        )
    result = []
    for number, (name, (scheme, masked)) in enumerate(zip(names, schemes, strict=True)):
        modality = _MODALITIES.get(name.casefold())
        known = plans.foreground_intensity_properties_per_channel.get(number)
        intensity = _intensity(scheme, masked, known, path)
        result.append(ChannelConfig(name=name, modalities=(modality,) if modality else (), intensity=intensity))
    return tuple(result)


def _intensity(scheme: str, masked: bool, known: Intensities | None, path: Path) -> IntensityConfig:
    match scheme:
        case "ZScoreNormalization":
            return IntensityConfig(scheme="zscore", use_mask=masked)
        case "CTNormalization" if known is not None:
            clip = known.percentile_00_5, known.percentile_99_5
            return IntensityConfig(scheme="fixed", clip=clip, mean=known.mean, std=max(known.std, _SMALLEST_STD))
        case "NoNormalization":
            return IntensityConfig(scheme="none")
        case "RescaleTo01Normalization":
            return IntensityConfig(scheme="minmax")
        case "RGBTo01Normalization":
            return IntensityConfig(scheme="fixed", mean=0.0, std=255.0)
    raise ModelError(
        f"{path}: normalization_schemes: {scheme} without foreground_intensity_properties_per_channel, or not known"
    )


def labels(dataset: Dataset, path: Path) -> tuple[tuple[LabelConfig, ...], Literal["softmax", "sigmoid"]]:
    """Labels in the order of the network's outputs, and whether they are classes or regions that overlap.

    nnU-Net takes labels for regions where one has several values, and paints region n with `regions_class_order[n]`.
    Its label called ignore is for training.

    Raises
    ------
    ModelError
        Class values that aren't 0, 1, 2, ..., or regions without their order.
    """
    named = {
        name: value if isinstance(value, tuple) else (value,)
        for name, value in dataset.labels.items()
        if name != "ignore"
    }
    foreground = {name: values for name, values in named.items() if set(values) != {0}}
    if any(len(values) > 1 for values in named.values()):
        order = dataset.regions_class_order or ()
        if len(order) != len(foreground):
            raise ModelError(f"{path}: regions_class_order has {len(order)} values for {len(foreground)} regions")
        regions = zip(foreground.items(), order, strict=True)
        return tuple(_label(value, name, members) for (name, members), value in regions), "sigmoid"
    classes = sorted((values[0], name) for name, values in foreground.items())
    if [value for value, _ in classes] != list(range(1, len(classes) + 1)):
        raise ModelError(f"{path}: the labels' values are {[value for value, _ in classes]}, not 1, 2, 3, ...")
    return tuple(_label(value, name) for value, name in classes), "softmax"


def _label(value: int, name: str, members: tuple[int, ...] = ()) -> LabelConfig:
    return LabelConfig(value=value, name=name, colour=any_colour(value), members=members)
