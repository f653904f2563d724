"""What a listener hears of a batch, and what a token ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import volseg
from tests.helpers.batch import as_json
from tests.helpers.dicom_files import lps_affine, write_series
from tests.helpers.tiny import scan, threshold_model, write_nifti
from volseg.errors import CancelledError, InputError, UsageError
from volseg.events import Cancel, CaseBegun, CaseDone, Event, Note, Planned, Progress
from volseg.inference import Model, load_model

SHAPE = (35, 44, 33)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models") / "threshold"
    threshold_model(folder, window=[32, 32, 32])
    return load_model(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", scan(SHAPE, seed=seed))
    return tmp_path / "in"


def test_a_listener_hears_each_case_from_its_beginning_to_its_end(folder: Path, model: Model) -> None:
    heard: list[Event] = []
    results = volseg.segment(folder, folder.parent / "out", model=model, listener=heard.append, preview=False)
    assert [event for event in heard if isinstance(event, CaseBegun)] == [
        CaseBegun(case=name, number=number, count=3) for number, name in enumerate("abc", start=1)
    ]
    assert [event.result for event in heard if isinstance(event, CaseDone)] == results
    for result in results:
        own = [event for event in heard if event.case == result.case]
        (planned,) = (event for event in own if isinstance(event, Planned))
        assert planned.total > 0
        steps = [event for event in own if isinstance(event, Progress)]
        assert [step.done for step in steps] == list(range(result.windows + 1))
        assert {(step.count, step.stage) for step in steps} == {(result.windows, "network")}
        assert tuple(event.text for event in own if isinstance(event, Note)) == result.flags
        assert isinstance(own[-1], CaseDone)


def test_cancelling_ends_between_windows_and_leaves_whole_cases(folder: Path, model: Model) -> None:
    cancel, out = Cancel(), folder.parent / "out"
    heard: list[Event] = []

    def listener(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Progress) and event.case == "b" and event.done == 2:
            cancel.cancel()

    with pytest.raises(CancelledError):
        volseg.segment(folder, out, model=model, listener=listener, cancel=cancel, preview=False)
    assert max(event.done for event in heard if isinstance(event, Progress) and event.case == "b") == 2
    assert not [event for event in heard if isinstance(event, CaseBegun) and event.case == "c"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "a/mask.nii.gz",
        "a/result.json",
    ]
    # The next run goes on from there.
    results = volseg.segment(folder, out, model=model, preview=False)
    assert [(result.case, result.status, result.reused) for result in results] == [
        ("a", "done", True),
        ("b", "done", False),
        ("c", "done", False),
    ]


def test_a_batch_that_is_cancelled_before_it_begins_writes_nothing(folder: Path, model: Model) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(CancelledError):
        volseg.segment(folder, folder.parent / "out", model=model, cancel=cancel)
    assert not list((folder.parent / "out").rglob("*"))


@pytest.mark.parametrize("kind", [CaseBegun, Planned, Progress, Note, CaseDone])
def test_an_error_of_a_listener_ends_the_batch_and_is_no_case_s(folder: Path, model: Model, kind: type[Event]) -> None:
    def listener(event: Event) -> None:
        if isinstance(event, kind):
            raise OSError("the pipe is closed")

    with pytest.raises(OSError, match="the pipe is closed"):
        volseg.segment(folder, folder.parent / "out", model=model, listener=listener, preview=False)
    written = [json.loads(path.read_text()) for path in (folder.parent / "out").glob("*/result.json")]
    assert [result["status"] for result in written] == (["done"] if kind is CaseDone else [])


def test_events_of_a_series_bear_its_case_s_name(tmp_path: Path, model: Model) -> None:
    write_series(tmp_path / "in", scan(SHAPE), lps_affine((1, 1, 1)), seed="crop")
    heard: list[Event] = []
    (result,) = volseg.segment(tmp_path / "in", tmp_path / "out", model=model, listener=heard.append, preview=False)
    assert result.case.startswith("MR-")
    assert {event.case for event in heard} == {result.case}
    assert {Planned, Progress} < {type(event) for event in heard}


def test_segment_takes_a_models_folder_and_options_by_name(folder: Path, model: Model) -> None:
    out = folder.parent / "out"
    (result,) = volseg.segment(
        str(folder / "a.nii.gz"), str(out), model=model.folder.path, formats=["nifti"], entropy=True, preview=False
    )
    assert sorted(result.files) == ["mask.nii.gz", "probabilities/entropy.nii.gz"]
    assert (result.options.formats, result.options.entropy, result.options.preview) == (("nifti",), True, False)
    assert as_json(result) == json.loads((out / "a" / "result.json").read_text())


def test_segment_refuses_a_wrong_call(folder: Path, model: Model) -> None:
    with pytest.raises(UsageError, match="mirror: no such key"):
        volseg.segment(folder, folder.parent / "out", model=model, mirror=True)
    with pytest.raises(UsageError, match="nonesuch"):
        volseg.segment(folder, folder.parent / "out", model="nonesuch")
    (folder.parent / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        volseg.segment(folder.parent / "empty", folder.parent / "out", model=model)
    assert not (folder.parent / "out").exists()
