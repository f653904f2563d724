"""Stages of several cases at the same time: what overlaps, what is the same without, and what an interrupt leaves."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import volseg.batch.pipeline
from tests.helpers.batch import segment
from tests.helpers.tiny import model_of, scan, tiny_recipe, write_nifti
from volseg.batch.pipeline import fit_together, run_cases
from volseg.geometry import Geometry
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.results.case import CaseResult
from volseg.results.settings import Settings
from volseg.volume import Source, Volume

WAIT_S = 20
SHAPES = {"a": (13, 9, 12), "b": (11, 14, 8), "d": (9, 12, 15)}


def study(folder: Path) -> Path:
    """Three scans, and one that is damaged, third in order."""
    for seed, (name, shape) in enumerate(SHAPES.items()):
        write_nifti(folder / "in" / f"{name}.nii.gz", scan(shape, seed=seed))
    (folder / "in" / "c.nii.gz").write_bytes((folder / "in" / "a.nii.gz").read_bytes()[:900])
    return folder / "in"


def model_for(folder: Path) -> Model:
    """It sees each voxel's neighbourhood, on a grid of its own, and was trained on anything."""
    recipe = tiny_recipe(spacing_mm=[0.5, 1, 11 / 30], resampling={"image_order": 3})
    model_of(folder, recipe, spacing_mm=((0.1, 9.0),) * 3, extent_mm=((1.0, 500.0),) * 3)
    return load_model(folder)


def run(path: Path, out: Path, model: Model, options: Options | None = None, **told: Any) -> list[dict[str, Any]]:
    return segment(path, out, model, options=options, **told)


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("seconds", "peak_memory_mb")}


class Stages:
    """A case that does nothing but meet others."""

    def __init__(self, name: str, log: list[str], meet: dict[str, threading.Barrier], break_in: str = "") -> None:
        self.name, self.log, self.meet, self.break_in = name, log, meet, break_in

    def _stage(self, stage: str) -> None:
        self.log.append(f"{stage} {self.name}")
        if stage == self.break_in:
            raise KeyboardInterrupt
        if f"{stage} {self.name}" in self.meet:
            self.meet[f"{stage} {self.name}"].wait(WAIT_S)
        self.log.append(f"{stage} {self.name} over")

    def prepare(self, _stop: threading.Event) -> None:
        self._stage("prepare")

    def run(self) -> None:
        self._stage("run")

    def write(self) -> CaseResult:
        self._stage("write")
        return CaseResult(case=self.name, status="done")


def run_stages(cases: list[Any]) -> list[CaseResult]:
    return run_cases(cases)


def test_three_cases_are_on_their_way_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volseg.batch.pipeline, "fit_together", lambda *_: True)
    log: list[str] = []
    together = threading.Barrier(3)
    meet = dict.fromkeys(("write 1", "run 2", "prepare 3"), together)
    results = run_stages([Stages(str(n), log, meet) for n in range(1, 6)])
    assert [result.case for result in results] == list("12345")
    # One ahead and one behind, not more: nothing of the fourth begins while the second is with the network.
    assert log.index("prepare 4") > log.index("run 2 over")
    for n in range(1, 5):
        assert log.index(f"run {n + 1}") > log.index(f"run {n} over")
        assert log.index(f"write {n + 1}") > log.index(f"write {n} over")


def test_without_the_memory_one_case_is_over_before_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volseg.batch.pipeline, "fit_together", lambda *_: False)
    log: list[str] = []
    run_stages([Stages(str(n), log, {}) for n in (1, 2)])
    assert log == [f"{stage} {n}{end}" for n in "12" for stage in ("prepare", "run", "write") for end in ("", " over")]


def test_an_interrupt_lets_what_is_being_written_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volseg.batch.pipeline, "fit_together", lambda *_: True)
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_stages([Stages(str(n), log, {}, break_in="run" if n == 2 else "") for n in range(1, 5)])
    assert {"write 1 over", "prepare 3 over"} <= set(log)
    assert not {"write 2", "run 3", "prepare 4"} & set(log)


@pytest.mark.parametrize("interrupted", ["b", "d"])
def test_an_interrupt_leaves_whole_cases_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    model, path, out = model_for(tmp_path / "model"), study(tmp_path), tmp_path / "out"
    whole = Segmenter.run

    def interrupt(self: Segmenter, ready: Any, *told: Any) -> Any:
        if ready.volume.source.name == interrupted:
            raise KeyboardInterrupt
        return whole(self, ready, *told)

    monkeypatch.setattr(Segmenter, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(path, out, model)
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c", "d"][: "abcd".index(interrupted)]
    assert all((case / "result.json").exists() for case in out.iterdir())
    monkeypatch.undo()
    again = run(path, out, model)
    assert [result["case"] for result in again if result.get("reused")] == (["a"] if interrupted == "b" else ["a", "b"])


def test_results_are_those_without_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = model_for(tmp_path / "model"), study(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = {}
        for overlap in (True, False):
            monkeypatch.setattr(volseg.batch.pipeline, "fit_together", lambda *_, answer=overlap: answer)
            out, said = tmp_path / f"{overlap}", list[str]()
            results = run(path, out, model, after=lambda result, said=said: said.append(result["case"]))
            assert said == list("abcd")
            assert [json.loads((out / case / "result.json").read_text()) for case in said] == results
            assert [result["status"] for result in results] == ["done", "done", "refused", "done"]
            for result in results:
                stages = {"load", "preprocess", "network", "restore", "postprocess", "write"}
                assert set(result["seconds"]) == (stages if result["status"] == "done" else {"load"})
                assert result["threads"] == 2
            masks = [(out / case / "mask.nii.gz").read_bytes() for case in SHAPES]
            found[overlap] = ([timeless(result) for result in results], masks)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert found[True] == found[False]


def test_preprocessing_doesn_t_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    # Of these sizes (to 70 x 44 x 90) matrix products are divided among threads, which changes their last bits.
    segmenter = Segmenter(model_for(tmp_path / "model"))
    shape = (35, 44, 33)
    volume = Volume(scan(shape).astype(np.float32), Geometry(shape, np.eye(4)), Source(name="x", modality="MR"))
    threads = torch.get_num_threads()
    try:
        tensors = []
        for count in (1, 2):
            torch.set_num_threads(count)
            tensors.append(segmenter.prepare(volume).prepared.tensor_CDHW)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*tensors)


class TestFitTogether:
    """Which cases may overlap, by memory."""

    @staticmethod
    def pair(settings: Settings, shape: tuple[int, int, int], spacing: float = 1.0, plan: Any = ...) -> Any:
        """A case of 10 x 10 x 10 mm that takes 1000 bytes beside the process, and another."""
        plan = SimpleNamespace(total=1500, process=500) if plan is ... else plan
        return tuple(
            SimpleNamespace(
                plan=given, job=SimpleNamespace(settings=settings), candidate=SimpleNamespace(geometry=grid)
            )
            for given, grid in (
                (plan, Geometry((10, 10, 10), np.eye(4))),
                (None, Geometry(shape, np.diag([spacing, 1, 1, 1]))),
            )
        )

    @pytest.mark.parametrize(
        ("shape", "spacing", "needed"),
        [
            ((10, 10, 10), 1.0, 2000),
            ((10, 10, 5), 1.0, 2000),
            ((10, 10, 30), 1.0, 4000),
            ((10, 10, 10), 4.0, 5000),
            ((10, 10, 30), 0.1, 4000),
        ],
    )
    def test_the_machine_holds_both(
        self, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], spacing: float, needed: int
    ) -> None:
        cases = self.pair(Settings(), shape, spacing)
        for available, fits in ((needed, True), (needed - 1, False), (None, True)):
            monkeypatch.setattr(volseg.batch.pipeline, "available_bytes", lambda available=available: available)
            assert fit_together(*cases) is fits

    def test_not_with_a_bound_and_not_where_nothing_runs(self) -> None:
        assert fit_together(*self.pair(Settings(), (10, 10, 10)))
        assert not fit_together(*self.pair(Settings(memory=10**15), (10, 10, 10)))
        assert not fit_together(*self.pair(Settings(), (10, 10, 10), plan=None))

    def test_what_can_t_be_loaded_takes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        case, following = self.pair(Settings(), (10, 10, 10))
        following.candidate.geometry = None
        monkeypatch.setattr(volseg.batch.pipeline, "available_bytes", lambda: 0)
        assert fit_together(case, following)
