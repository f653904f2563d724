"""What a model is asked for: some labels, other steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny import (
    Array,
    model_of,
    scan,
    threshold_model,
    threshold_recipe,
    threshold_weights,
    thresholded,
    untrained_model,
)
from volseg.errors import UsageError
from volseg.geometry import Geometry
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.volume import Volume

FIRST, SECOND = (label.name for label in threshold_recipe().labels)


def volume(shape: tuple[int, int, int] = (19, 12, 30)) -> Volume:
    return Volume(scan(shape), Geometry(shape, np.diag([1.0, 1.0, 2.0, 1.0])))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    threshold_model(tmp_path / "m")
    return load_model(tmp_path / "m")


@pytest.mark.parametrize(("asked", "value"), [((FIRST,), 1), (("2",), 2), ((SECOND, "2"), 2)])
def test_some_labels_are_those_of_the_whole_mask(model: Model, asked: tuple[str, ...], value: int) -> None:
    found = Segmenter(model, Options(labels=asked)).segment(volume()).mask
    whole = thresholded(volume().array)
    assert np.array_equal(found.array, np.where(whole == value, value, 0))
    assert [label.value for label in found.labels] == [value]
    assert found.voxel_counts() == {value: (whole == value).sum()}


def test_all_labels_by_name_are_all(model: Model) -> None:
    found = Segmenter(model, Options(labels=(SECOND, FIRST))).segment(volume()).mask
    assert np.array_equal(found.array, thresholded(volume().array))
    assert [label.value for label in found.labels] == [1, 2]


def test_a_label_that_is_not_there_is_named(model: Model) -> None:
    with pytest.raises(UsageError, match=rf"model threshold has no label spleen, 3; it has {FIRST} \(1\), {SECOND} "):
        Segmenter(model, Options(labels=(FIRST, "spleen", "3")))


def test_a_hole_is_not_filled_where_another_label_lies(tmp_path: Path) -> None:
    """A shell of label 1 around label 2 and one voxel of background: the hole is the background's voxel alone."""
    array = np.zeros((9, 9, 9), np.int16)
    array[1:8, 1:8, 1:8] = 150
    array[3:6, 3:6, 3:6] = 250
    array[2, 2, 2] = 0
    fill = {"label": 1, "fill_holes": True}
    threshold_model(tmp_path / "m", postprocess=[fill])
    segmenter = Segmenter(load_model(tmp_path / "m"), Options(labels=("1",)))
    found = segmenter.segment(Volume(array, Geometry((9, 9, 9), np.eye(4))))
    expected = np.zeros((9, 9, 9), np.uint8)
    expected[1:8, 1:8, 1:8] = 1
    expected[3:6, 3:6, 3:6] = 0
    assert np.array_equal(found.mask.array, expected)


def test_a_region_that_is_asked_for_is_not_hidden_by_another(tmp_path: Path) -> None:
    """Region 1 is where x > 100 and region 2, which is painted over it, where 2 x > 301."""
    network = {"features": [1], "kernels": [[1, 1, 1]], "convolutions": 1, "normalisation": "none"}
    weights = threshold_weights()
    weights["outputs.0.weight"] = weights["outputs.0.weight"][1:]
    weights["outputs.0.bias"] = weights["outputs.0.bias"][1:]
    model = Model(model_of(tmp_path / "m", threshold_recipe(output="sigmoid", network=network), {"all": weights}))
    x: Array = volume().array
    both = Segmenter(model).segment(volume()).mask
    assert np.array_equal(both.array, np.where(2 * x > 301, 2, x > 100.5))
    # What is hidden isn't lost.
    first, second = both.labels
    assert np.array_equal(both.voxels_of(first), x > 100.5)
    assert np.array_equal(both.voxels_of(second), 2 * x > 301)
    assert np.array_equal(Segmenter(model, Options(labels=("1",))).segment(volume()).mask.array, x > 100.5)
    assert np.array_equal(Segmenter(model, Options(labels=("2",))).segment(volume()).mask.array, (2 * x > 301) * 2)


def test_larger_steps_make_fewer_windows_and_nearly_the_same_mask(tmp_path: Path) -> None:
    untrained_model(tmp_path / "m", spacing_mm=None)
    model = load_model(tmp_path / "m")
    near, far = (Segmenter(model, Options(tile_step=step)).segment(volume((32, 32, 40))) for step in (0.5, 1.0))
    # Windows of 16: along 32 and 40 they begin at 0, 8, 16 (24); and at 0, 16 (0, 12, 24).
    assert (near.windows, far.windows) == (3 * 3 * 4, 2 * 2 * 3)
    assert np.array_equal(near.mask.array, Segmenter(model).segment(volume((32, 32, 40))).mask.array)
    assert 0.5 < (near.mask.array == far.mask.array).mean() < 1
