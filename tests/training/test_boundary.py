"""Distance to the surface of a label, against scipy's exact distance map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.helpers.tiny import tiny_recipe
from volseg.training.boundary import boundary_share
from volseg.training.loss import SegmentationLoss


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.9)])
def test_it_is_a_gaussian_of_the_exact_distance(spacing_mm: tuple[float, float, float]) -> None:
    labels = np.zeros((2, 1, 9, 14, 11), dtype=np.int32)
    labels[0, 0, 2:6, 3:9, 4:8] = 1
    labels[0, 0, 6:8, 3:5, 4:8] = 2
    labels[1, 0, 0, 0, 0] = 1
    found = boundary_share(torch.from_numpy(labels), spacing_mm, 1.5).numpy()
    for patch, share in zip(labels[:, 0], found[:, 0], strict=True):
        surface = np.zeros(patch.shape, dtype=bool)
        for place in np.ndindex(patch.shape):
            for axis in range(3):
                for step in (-1, 1):
                    near = list(place)
                    near[axis] += step
                    inside = 0 <= near[axis] < patch.shape[axis]
                    surface[place] |= inside and patch[tuple(near)] != patch[place]
        distance = ndimage.distance_transform_edt(~surface, sampling=spacing_mm)
        expected = np.where(distance <= 4.5, np.exp(-(distance**2) / (2 * 1.5**2)), 0)
        assert share == pytest.approx(expected, abs=1e-6)


def test_one_label_has_no_surface_and_neither_has_the_edge_of_what_was_judged() -> None:
    labels = torch.zeros((1, 1, 4, 5, 6), dtype=torch.int32)
    assert float(boundary_share(labels, (1, 1, 1), 2.0).max()) == 0
    labels[..., 3:] = 9
    assert float(boundary_share(labels, (1, 1, 1), 2.0).max()) == 1
    assert float(boundary_share(labels, (1, 1, 1), 2.0, ignored=9).max()) == 0


def test_voxels_at_the_surface_weigh_more_in_cross_entropy() -> None:
    labels = torch.tensor([0, 0, 0, 0, 0, 1], dtype=torch.int32).reshape(1, 1, 6, 1, 1)
    logits = torch.zeros((1, 3, 6, 1, 1))
    logits[0, 0, 0] = 5.0  # right, far from the surface
    logits[0, 0, 5] = 5.0  # wrong, at it
    training = {"loss": [{"kind": "cross_entropy"}], "boundary_weight": 9.0, "boundary_sigma_mm": 0.3}
    each = torch.nn.functional.cross_entropy(logits, labels[:, 0].long(), reduction="none").flatten()
    weights = torch.tensor([1.0, 1, 1, 1, 10, 10])
    expected = float((weights * each).sum() / weights.sum())
    assert float(SegmentationLoss(tiny_recipe(training=training))([logits], labels)) == pytest.approx(
        expected, abs=1e-5
    )
