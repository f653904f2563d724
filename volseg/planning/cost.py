"""What a training step takes: operations, time and memory, from the recipe's numbers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from volseg.config import NetworkConfig, Triple
from volseg.training.muon import ITERATIONS

#: Floating-point operations a second of a core in training, by precision: a step of 57 billion (16 features, two
#: windows of 40x56x40) took 0.25 to 0.3 s in bf16 on two cores with AVX-512, and 0.76 to 0.9 s in fp32 with AVX2.
OPERATIONS_PER_S = {"bf16": 100e9, "fp32": 35e9}
#: Seconds of a core that each value of the supervised outputs takes beside those operations, forward and backward: with
#: many classes the last layer and the loss, which pass over these values a dozen times, wait for memory. Measured with
#: 43 outputs, two windows of 64x64x64, fp32: 12 and 25 billionths; with 3 outputs 40 and 36.
OUTPUT_S = 40e-9
#: Float32 values held for each value that a convolution gives, and for each output of the loss, where a step's peak is:
#: 3.9 measured in fp32 with 16 features, 3 outputs, 40x56x40.
HELD_PER_VALUE, HELD_PER_OUTPUT = 4.0, 8.0
#: Bytes of a parameter: weight, gradient, Muon's momentum and step, the moving average, float32 each.
PER_PARAMETER = 20
#: Of a process with its libraries, before it holds a case.
PROCESS = 600_000_000


@dataclass(frozen=True)
class Machine:
    """What trains: threads, and whether they compute in bf16."""

    threads: int
    bf16: bool

    @property
    def operations_per_s(self) -> float:
        """Floating-point operations a second in training."""
        return self.threads * OPERATIONS_PER_S["bf16" if self.bf16 else "fp32"]


@dataclass(frozen=True)
class Cost:
    """Of one window, forward.

    Attributes
    ----------
    operations
        Floating-point operations, a multiplication and an addition being two.
    values
        Number of values that convolutions give.
    logits
        Number of values of the supervised outputs.
    parameters
        Number of the network's parameters.
    update
        Floating-point operations of Muon's step, whatever the batch.
    """

    operations: int
    values: int
    logits: int
    parameters: int
    update: int

    def step_operations(self, batch: int) -> int:
        """Of an optimiser step: the backward pass takes twice as many as the forward pass."""
        return 3 * batch * self.operations + self.update

    def step_s(self, batch: int, machine: Machine) -> float:
        """Seconds of an optimiser step."""
        outputs = batch * self.logits * OUTPUT_S / machine.threads
        return self.step_operations(batch) / machine.operations_per_s + outputs

    def step_bytes(self, batch: int) -> int:
        """Memory of an optimiser step, the process without its cases included."""
        held = self.values * HELD_PER_VALUE + self.logits * HELD_PER_OUTPUT
        return round(batch * 4 * held) + self.parameters * PER_PARAMETER + PROCESS


def cost(network: NetworkConfig, channels: int, outputs: int, window: Triple) -> Cost:
    """Count what `volseg.network.unet.UNet` does with one window.

    Parameters
    ----------
    network
        Stages of the network: plain convolutions with transposed upsampling, which is what plans choose.
    channels, outputs
        Numbers of the network's channels and outputs.
    window
        D, H, W, divided by the strides.
    """
    features, strides, kernels = network.features, network.stage_strides, network.stage_kernels
    voxels, size = [], window
    for step in strides:
        size = (size[0] // step[0], size[1] // step[1], size[2] // step[2])
        voxels.append(math.prod(size))
    layers = []
    for stage, (count, here) in enumerate(zip(network.stage_convolutions, voxels, strict=True)):
        into = features[stage - 1] if stage else channels
        layers += _block(here, into, features[stage], kernels[stage], count)
    supervised = max(1, len(features) - 2) if network.deep_supervision else 1
    heads = [_Layer(voxels[n], features[n], outputs, 1, (features[n] + 1) * outputs) for n in range(supervised)]
    for stage, count in enumerate(network.stage_decoder_convolutions):
        here, out, below = voxels[stage], features[stage], features[stage + 1]
        layers += _block(here, 2 * out, out, kernels[stage], count)
        # A voxel that a transposed convolution gives comes from one voxel below: its kernel is its stride.
        taps = math.prod(strides[stage + 1])
        update = _muon(below, out * taps)
        layers.append(_Layer(here, below, out, 1, (below * taps + 1) * out, update))
    return Cost(
        operations=sum(2 * n.voxels * n.into * n.out * n.taps for n in (*layers, *heads)),
        values=sum(n.voxels * n.out for n in layers),
        logits=sum(n.voxels * n.out for n in heads),
        parameters=sum(n.parameters for n in (*layers, *heads)),
        update=sum(n.update for n in layers),
    )


class _Layer(NamedTuple):
    """A convolution: voxels of its result, channels in and out, products a voxel and pair of channels, parameters."""

    voxels: int
    into: int
    out: int
    taps: int
    parameters: int
    update: int = 0


def _block(voxels: int, into: int, out: int, kernel: Triple, count: int) -> list[_Layer]:
    """Convolutions of a stage, each with a normalisation that has a factor and a shift a channel."""
    taps = math.prod(kernel)
    widths = (into, *(out,) * (count - 1))
    return [
        _Layer(voxels, width, out, taps, width * out * taps + 2 * out, _muon(out, width * taps)) for width in widths
    ]


def _muon(rows: int, columns: int) -> int:
    """Operations of `volseg.training.muon.orthogonalised`: two products with the matrix, the others with its square."""
    short, long = sorted((rows, columns))
    return 2 * 2 * short**2 * long + ITERATIONS * 4 * 2 * short**3
