"""The network by torch, with its last layer and without."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import tiny_recipe
from volseg.inference.engines.head import Head, joined, leaves_head
from volseg.inference.engines.torch import TorchEngine
from volseg.network.unet import UNet


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(1)
    return UNet.from_recipe(tiny_recipe())


def test_logits_are_the_networks_channels_last(network: UNet) -> None:
    x = torch.randn(2, 1, 16, 8, 4, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = network.eval()(x)
    found = TorchEngine(network)(x)
    assert found.shape == (2, 16, 8, 4, 3)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 4, 1))


def test_the_head_that_is_left_makes_the_same_logits(network: UNet) -> None:
    x = torch.randn(1, 1, 16, 8, 4, generator=torch.Generator().manual_seed(2))
    whole, left = TorchEngine(network), TorchEngine(network, leave_head=True)
    assert whole.head is None
    assert left.head is not None
    features = left(x)
    assert features.shape == (1, 16, 8, 4, 4)
    torch.testing.assert_close(left.head(features), whole(x))


def test_joined_heads_give_the_mean_of_their_logits() -> None:
    first = Head(torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([0.0, 0.0, 8.0]))
    second = Head(torch.tensor([[4.0, 0.0, 2.0]]), torch.tensor([2.0, 0.0, 0.0]))
    # Features (1, 2) and (3): logits (1, 4, 11) and (14, 0, 6).
    assert joined([first, second])(torch.tensor([[[1.0, 2.0, 3.0]]])).tolist() == [[[7.5, 2.0, 8.5]]]


def test_the_head_is_left_where_features_are_fewer_than_outputs() -> None:
    recipe = tiny_recipe(network={"features": [2, 8]})
    assert (recipe.outputs, leaves_head(recipe, 1), leaves_head(recipe, 2)) == (3, True, False)
