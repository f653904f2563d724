"""How well masks agree with references: overlap, surface distances, and statistics over cases."""

from __future__ import annotations

from volseg.evaluation.folders import CaseScore, Evaluation, evaluate_folders
from volseg.evaluation.overlap import dice_per_label
from volseg.evaluation.scores import LabelScore, evaluate_pair

__all__ = ["CaseScore", "Evaluation", "LabelScore", "dice_per_label", "evaluate_folders", "evaluate_pair"]
