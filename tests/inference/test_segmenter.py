"""A model and its options, bound: what is told on the way, and what ends it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from tests.helpers.tiny import scan, threshold_model, thresholded
from volseg.errors import CancelledError, UsageError
from volseg.events import Cancel, Event, Planned, Progress
from volseg.geometry import Geometry
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.volume import Source, Volume

SHAPE = (19, 12, 30)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    threshold_model(tmp_path / "m", folds=("0", "1"))
    return load_model(tmp_path / "m")


def volume(name: str = "a") -> Volume:
    return Volume(scan(SHAPE), Geometry(SHAPE, np.diag([1.0, 1.0, 2.0, 1.0])), Source(name=name))


def test_options_are_data() -> None:
    options = Options(folds=("1",), labels=("2",), memory=10**9)
    data = TypeAdapter(Options)
    assert data.validate_json(data.dump_json(options)) == options


def test_the_three_steps_are_what_segment_does(model: Model) -> None:
    segmenter = Segmenter(model, Options(folds=("1",)))
    steps: list[Event] = []
    prediction = segmenter.finish(segmenter.run(segmenter.prepare(volume(), steps.append), steps.append))
    assert np.array_equal(prediction.mask.array, thresholded(volume().array))
    whole: list[Event] = []
    assert np.array_equal(segmenter.segment(volume(), whole.append).mask.array, prediction.mask.array)
    assert steps[1:] == whole[1:]  # plans differ by what the process holds by then
    assert [type(event) for event in steps] == [Planned, *[Progress] * (prediction.windows + 1)]
    assert {event.case for event in steps} == {"a"}


def test_weights_are_loaded_once_for_all_that_use_them(model: Model) -> None:
    one, two = Segmenter(model), Segmenter(model, Options(labels=("1",), tile_step=1.0))
    assert all(first is second for first, second in zip(one.engines, two.engines, strict=True))
    assert Segmenter(model, Options(engine="torch")).engines[0] is not one.engines[0]


@pytest.mark.parametrize("options", [Options(folds=("7",)), Options(labels=("spleen",)), Options(device="abacus")])
def test_what_a_model_does_not_have_is_said_when_it_is_bound(model: Model, options: Options) -> None:
    with pytest.raises(UsageError):
        Segmenter(model, options)


@pytest.mark.parametrize("coarse", [False, True])
def test_cancelling_ends_a_run_between_windows(model: Model, coarse: bool) -> None:
    segmenter, cancel, heard = Segmenter(model, Options(coarse_to_fine=coarse)), Cancel(), list[Event]()
    threads = threading.active_count()

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Progress) and event.done == 3:
            cancel.cancel()

    with pytest.raises(CancelledError):
        segmenter.segment(volume(), listen, cancel)
    last = heard[-1]
    assert isinstance(last, Progress)
    assert (last.done, last.stage) == (3, "coarse pass" if coarse else "network")
    assert last.count > 3
    # What was ended leaves the segmenter, and threads, as they were.
    assert threading.active_count() == threads
    assert np.array_equal(segmenter.segment(volume()).mask.array, thresholded(volume().array))
