"""Operations, values and parameters against the network itself; choices against limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from volseg.config import NetworkConfig, TrainingConfig
from volseg.network.unet import UNet
from volseg.planning.cost import Machine, cost
from volseg.planning.size import Limits, Needs, Size, choose_size
from volseg.training.optimiser import build_optimiser

FAST = Machine(2, bf16=True)
SLOW = Machine(2, bf16=False)


@pytest.mark.parametrize(
    ("network", "channels", "outputs", "window"),
    [
        ({"features": [4, 8, 16]}, 1, 3, (8, 12, 16)),
        ({"features": [4, 6, 8, 10], "deep_supervision": False}, 2, 5, (8, 16, 24)),
        (
            {
                "features": [3, 5, 7],
                "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
                "convolutions": [1, 2, 3],
            },
            3,
            4,
            (4, 8, 12),
        ),
        ({"features": [5]}, 1, 2, (5, 6, 7)),
    ],
)
def test_it_counts_what_the_network_does(
    network: dict[str, Any], channels: int, outputs: int, window: tuple[int, int, int]
) -> None:
    config = NetworkConfig.model_validate(network)
    built = UNet(config, channels, outputs)
    counts = {"operations": 0, "values": 0}

    def count(layer: nn.Module, given: Any, result: torch.Tensor) -> None:
        weight = layer.get_parameter("weight")
        over = given[0] if isinstance(layer, nn.ConvTranspose3d) else result
        counts["operations"] += 2 * weight.numel() * math.prod(over.shape[2:])
        counts["values"] += result.numel()

    for layer in built.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_hook(count)
    logits = sum(part.numel() for part in built.supervised(torch.empty(1, channels, *window)))
    found = cost(config, channels, outputs, window)
    assert found.operations == counts["operations"]
    assert found.logits == logits
    assert found.values == counts["values"] - logits
    assert found.parameters == sum(parameter.numel() for parameter in built.parameters())


def test_it_counts_what_muon_does() -> None:
    config = NetworkConfig(features=(4, 6, 8), deep_supervision=False)
    network = UNet(config, 1, 3)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    optimiser = build_optimiser(network, TrainingConfig(optimiser="muon"))
    with FlopCounterMode(display=False) as counter:
        optimiser.step()
    assert cost(config, 1, 3, (8, 8, 8)).update == counter.get_total_flops()


def test_outputs_take_time_of_their_own() -> None:
    network = NetworkConfig(features=(8, 16, 32))
    few, many = (cost(network, 1, outputs, (64, 64, 64)) for outputs in (3, 118))
    # 115 more of them at full resolution: an operation, forward and backward, for each of 8 features, and memory.
    more = 2 * 64**3 * 115 * (6 * 8 / 70e9 + 40e-9 / 2)
    assert many.step_s(2, SLOW) - few.step_s(2, SLOW) == pytest.approx(more, rel=1e-6)
    assert many.step_s(2, SLOW) > 2 * few.step_s(2, SLOW)


def test_many_outputs_make_the_window_smaller_or_the_network_narrower() -> None:
    few, many = (chosen(needs((200, 200, 200), outputs=outputs), FAST) for outputs in (3, 118))
    assert many.fits
    work = [math.prod(size.topology.window) * size.features[0] for size in (few, many)]
    assert work[1] < work[0]


def needs(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), **more: Any) -> Needs:
    count = more.pop("cases", 100)
    given = {"labelled_ml": 10.0, "smallest_ml": 1.0, "channels": 1, "outputs": 3, **more}
    return Needs(spacings_mm=[spacing] * count, shapes=[shape] * count, stored_voxels=count * math.prod(shape), **given)


def chosen(what: Needs, machine: Machine = SLOW, minutes: float = 30.0, memory: float = 8e9) -> Size:
    return choose_size(what, Limits(machine, minutes, int(memory)))


def test_the_hippocampus_on_two_cores() -> None:
    size = chosen(needs((35, 50, 36)))
    assert (size.topology.window, size.features, size.batch) == ((40, 56, 40), (16, 32, 64, 128), 1)
    assert size.share == 1
    assert size.fits
    # What fits in 30 minutes of a faster machine is wider.
    assert chosen(needs((35, 50, 36)), FAST).features[0] == 24


@pytest.mark.parametrize("machine", [SLOW, FAST])
@pytest.mark.parametrize("minutes", [5.0, 30.0, 600.0])
@pytest.mark.parametrize("shape", [(35, 50, 36), (300, 512, 512), (22, 512, 512)])
def test_the_steps_fit_the_minutes(machine: Machine, minutes: float, shape: tuple[int, int, int]) -> None:
    spacing = (6.5, 0.5, 0.5) if shape[0] == 22 else (1.0, 0.8, 0.8)
    size = chosen(needs(shape, spacing), machine, minutes, 100e9)
    limits = Limits(machine, minutes, int(100e9))
    assert size.fits == (size.step_s(machine) * limits.steps <= minutes * 60)
    assert size.fits or size.features[0] == 8


def test_more_time_computes_more() -> None:
    work = [chosen(needs((35, 50, 36)), minutes=minutes) for minutes in (2, 30, 120, 2000)]
    assert [size.features[0] for size in work] == sorted(size.features[0] for size in work)
    operations = [size.cost.step_operations(size.batch) for size in work]
    assert operations == sorted(operations)
    assert operations[0] < operations[1] < operations[3]


def test_the_batch_is_at_most_a_twentieth_of_the_dataset() -> None:
    many, few = (chosen(needs((35, 50, 36), cases=count), FAST, minutes=10**5, memory=64e9) for count in (195, 6))
    assert many.batch == 6  # 195 cases x 63000 voxels x 0.05 / 89600
    assert few.batch == 1


def test_memory_makes_the_network_smaller() -> None:
    roomy, tight = (chosen(needs((128, 128, 128), cases=3), FAST, 5000.0, memory) for memory in (50e9, 2e9))
    assert tight.cost.step_bytes(tight.batch) < 2e9 < roomy.cost.step_bytes(roomy.batch)
    assert tight.fits


def test_what_can_t_fit_says_so() -> None:
    assert not chosen(needs((300, 300, 300)), memory=0.6e9).fits


def test_a_large_scan_is_seen_coarser() -> None:
    size = chosen(needs((400, 512, 512), (1.5, 0.8, 0.8), smallest_ml=50.0))
    assert size.native_mm == (1.5, 0.8, 0.8)
    assert size.share >= 1 / 8 - 0.01
    assert all(now > then for now, then in zip(size.spacing_mm, size.native_mm, strict=True))


def test_a_small_label_keeps_its_voxels() -> None:
    size = chosen(needs((400, 512, 512), (1.5, 0.8, 0.8), smallest_ml=0.5))
    voxels = 500 / math.prod(size.spacing_mm)
    assert 200 <= voxels < 230
    tiny = chosen(needs((400, 512, 512), (1.5, 0.8, 0.8), smallest_ml=0.01))
    assert tiny.spacing_mm == tiny.native_mm == (1.5, 0.8, 0.8)
