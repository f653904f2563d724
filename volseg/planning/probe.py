"""A few training steps of a planned network, timed."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional

from volseg.config import Recipe
from volseg.machine import native_bf16
from volseg.network.unet import UNet
from volseg.planning.cost import Machine
from volseg.training.optimiser import build_optimiser

#: Steps that are timed, after one that isn't; the shortest counts, since what else runs makes the others longer.
TIMED_STEPS = 3
#: No further step is begun after so many seconds: then the first one counts, with what it does once.
LONGEST_S = 10.0


def this_machine() -> Machine:
    """Threads of this process, and whether they compute in bf16."""
    return Machine(torch.get_num_threads(), native_bf16())


def probe(recipe: Recipe, machine: Machine) -> float:
    """Seconds of a training step without its patches: the network on noise, its gradient and its optimiser."""
    with torch.random.fork_rng(devices=[]):
        return _timed(recipe, machine)


def _loss(logits_BCDHW: Tensor, output: str) -> Tensor:
    """Stands for the recipe's loss: it passes over the outputs as often."""
    values = logits_BCDHW.float().flatten(2).transpose(1, 2)
    log_p = values.log_softmax(2) if output == "softmax" else functional.logsigmoid(values)
    return log_p.exp().mean() - log_p[..., 0].mean()


def _timed(recipe: Recipe, machine: Machine) -> float:
    torch.manual_seed(recipe.training.seed)
    network = UNet.from_recipe(recipe).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = build_optimiser(network, recipe.training)
    images = torch.randn(recipe.training.batch_size, len(recipe.channels), *recipe.window)
    images = images.contiguous(memory_format=torch.channels_last_3d)
    seconds = []
    for _ in range(TIMED_STEPS + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=machine.bf16):
            outputs = network.supervised(images)
        loss = sum((_loss(logits, recipe.output) for logits in outputs), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > LONGEST_S:
            break
    return min(seconds[1:] or seconds)
