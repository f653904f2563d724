"""Cascades: what the second stage's network sees, and how both stages are run."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import tiny_recipe
from volseg.inference.engines.stage1 import Stage1Engine
from volseg.inference.engines.torch import TorchEngine
from volseg.network.unet import UNet, stage1_values


@pytest.mark.parametrize(
    ("output", "labels", "values"),
    [
        ("softmax", [(1, ()), (4, ())], [1, 4]),
        ("sigmoid", [(1, (1, 2, 3)), (3, (2, 3)), (2, (3,))], [1, 2, 3]),
        ("sigmoid", [(2, (0, 2)), (1, ())], [1, 2]),
    ],
)
def test_the_network_sees_a_mask_of_each_label(
    output: str, labels: list[tuple[int, tuple[int, ...]]], values: list[int]
) -> None:
    """As nnU-Net has it: one channel a value of the training labels, in ascending order, none for the background."""
    named = [{"value": value, "name": str(value), "colour": [0, 0, 0], "members": m} for value, m in labels]
    task = tiny_recipe(output=output, labels=named)
    network = UNet.from_recipe(task, cascaded=True)
    assert network.channels == 1 + len(values)
    plain = TorchEngine(network)
    engine = Stage1Engine(plain, stage1_values(task))
    image = torch.randn(2, 1, 16, 16, 16)
    given = torch.randint(0, 6, (2, 1, 16, 16, 16)).float()
    masks = [(given == value).float() for value in values]
    assert torch.equal(engine(torch.cat([image, given], 1)), plain(torch.cat([image, *masks], 1)))
