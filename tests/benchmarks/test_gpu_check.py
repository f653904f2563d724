"""The check of a GPU: what it judges, and what it says where there is none."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from benchmarks import gpu_check


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 0
    assert capsys.readouterr().out == "this machine has no GPU that torch can use: nothing was checked\n"


def test_one_part_that_disagrees_is_an_exit_code_of_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu"])
    for part in ("predictions", "trainings", "joined", "peers"):
        monkeypatch.setattr(gpu_check, part, lambda device: device == "cpu")
    assert gpu_check.main() == 0
    monkeypatch.setattr(gpu_check, "joined", lambda _: False)
    assert gpu_check.main() == 1


def test_the_worst_label_counts() -> None:
    first, second = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 0])
    assert gpu_check.worst_dice(first, second) == pytest.approx(2 * 1 / 4)
    assert gpu_check.worst_dice(first, np.where(first == 2, 0, first)) == 0
    assert gpu_check.worst_dice(first, first) == 1


def test_a_table_says_what_doesn_t_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert not gpu_check.table("Masks", ("scan", "Dice"), [("a", 0.99954, True), ("b", 0.5, False)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["| a | 0.9995 | yes |", "| b | 0.5 | **no** |"]


@pytest.mark.slow
def test_losses_of_two_runs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "STEPS", 4)
    values, seconds = gpu_check.losses("cpu", "fp32", compiled=False)
    assert values == gpu_check.losses("cpu", "fp32", compiled=False)[0]
    assert len(values) == gpu_check.STEPS
    assert values[-1] < values[0]
    assert seconds > 0
