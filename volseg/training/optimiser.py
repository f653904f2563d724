"""The optimiser that the recipe names."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from volseg.config import TrainingConfig


def build_optimiser(network: nn.Module, config: TrainingConfig) -> Optimizer:
    """Optimiser of all weights; its learning rate is set at each step.

    Fused: all of a step's arithmetic in one pass over the weights.
    """
    decayed = [weight for weight in network.parameters() if config.decayed == "all" or weight.ndim > 1]
    kept = [weight for weight in network.parameters() if config.decayed != "all" and weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    match config.optimiser:
        case "adamw":
            return AdamW(groups, lr=0.0, betas=config.betas, fused=True)
        case "adam":
            return Adam(groups, lr=0.0, betas=config.betas, fused=True)
        case "sgd":
            return SGD(groups, lr=0.0, momentum=config.momentum, nesterov=True, fused=True)
        case "rmsprop":
            return RMSprop(groups, lr=0.0, momentum=config.momentum)
