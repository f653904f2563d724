"""The recipe: everything that one segmentation task chooses, in one strict YAML file.

A key that isn't a field is an error.
"""

from volseg.config.augmentation import AugmentationConfig, MirroringConfig
from volseg.config.image import ChannelConfig, IntensityConfig, ResamplingConfig
from volseg.config.labels import CodeConfig, LabelConfig
from volseg.config.loss import CrossEntropyTerm, FocalTerm, LossTerm, OverlapTerm, TverskyTerm
from volseg.config.network import NetworkConfig
from volseg.config.read import load_recipe, recipe_from_dict, validation_problem
from volseg.config.recipe import STORED_KJI, STORED_ORIENTATIONS, PostprocessRule, Recipe
from volseg.config.section import Section, Spacing, Triple
from volseg.config.synthesis import ContrastConfig, StructureConfig, SynthesisConfig
from volseg.config.training import TrainingConfig, TrainingPrecision

__all__ = [
    "STORED_KJI",
    "STORED_ORIENTATIONS",
    "AugmentationConfig",
    "ChannelConfig",
    "CodeConfig",
    "ContrastConfig",
    "CrossEntropyTerm",
    "FocalTerm",
    "IntensityConfig",
    "LabelConfig",
    "LossTerm",
    "MirroringConfig",
    "NetworkConfig",
    "OverlapTerm",
    "PostprocessRule",
    "Recipe",
    "ResamplingConfig",
    "Section",
    "Spacing",
    "StructureConfig",
    "SynthesisConfig",
    "TrainingConfig",
    "TrainingPrecision",
    "Triple",
    "TverskyTerm",
    "load_recipe",
    "recipe_from_dict",
    "validation_problem",
]
