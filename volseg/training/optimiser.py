"""The optimiser that the recipe names."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from volseg.config import TrainingConfig
from volseg.training.muon import Muon


def build_optimiser(network: nn.Module, config: TrainingConfig) -> Optimizer:
    """Optimiser of all weights; its learning rate is set at each step.

    Fused: all of a step's arithmetic in one pass over the weights.
    """
    groups = _groups(network, config)
    match config.optimiser:
        case "adamw":
            return AdamW(groups, lr=0.0, betas=config.betas, fused=True)
        case "adam":
            return Adam(groups, lr=0.0, betas=config.betas, fused=True)
        case "sgd":
            return SGD(groups, lr=0.0, momentum=config.momentum, nesterov=True, fused=True)
        case "rmsprop":
            return RMSprop(groups, lr=0.0, momentum=config.momentum)
        case "muon":
            return Muon(groups, lr=0.0, momentum=config.momentum, betas=config.betas)


def _groups(network: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Weights by whether they are decayed and, with muon, by whether they are kernels of hidden layers."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        kernel = weight.ndim > 1
        hidden = kernel and not name.startswith("outputs.")
        decayed = kernel or config.decayed == "all"
        groups.setdefault((decayed, config.optimiser != "muon" or hidden), []).append(weight)
    return [
        {"params": weights, "weight_decay": config.weight_decay if decayed else 0.0}
        | ({} if config.optimiser != "muon" else {"adam": not hidden})
        for (decayed, hidden), weights in groups.items()
    ]
