"""Time and energy of a run, also of one that was resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from volseg.training import usage
from volseg.training.usage import Meter, Usage, read_usage


def counter(folder: Path, number: int, joules: int) -> None:
    (folder / f"intel-rapl:{number}").mkdir(exist_ok=True)
    (folder / f"intel-rapl:{number}" / "energy_uj").write_text(f"{joules * 1_000_000}\n")
    (folder / f"intel-rapl:{number}" / "max_energy_range_uj").write_text(f"{1000 * 1_000_000 - 1}\n")


def test_energy_is_of_all_processors_wraps_round_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "POWERCAP", tmp_path)
    counter(tmp_path, 0, 900)
    counter(tmp_path, 1, 50)
    meter = Meter(tmp_path)
    counter(tmp_path, 0, 100)  # 200 J, past the largest value of 1000 J
    counter(tmp_path, 1, 80)
    meter.write()
    assert read_usage(tmp_path).energy_joules == 230
    again = Meter(tmp_path)
    counter(tmp_path, 1, 90)
    assert again.now().energy_joules == 240
    assert again.now().cpu_seconds >= read_usage(tmp_path).cpu_seconds


def test_a_machine_that_doesn_t_say_has_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "POWERCAP", tmp_path)
    meter = Meter(tmp_path)
    sum(n * n for n in range(300_000))
    meter.write()
    found = read_usage(tmp_path)
    assert found.energy_joules is None
    assert found.wall_seconds >= 0
    # What is known of a part isn't shown as if it were of the whole.
    (tmp_path / "usage.json").write_text(Usage(wall_seconds=5, cpu_seconds=4).model_dump_json())
    counter(tmp_path, 0, 10)
    later = Meter(tmp_path).now()
    assert later.energy_joules is None
    assert later.wall_seconds >= 5


def test_a_file_that_can_t_be_read_counts_from_zero(tmp_path: Path) -> None:
    (tmp_path / "usage.json").write_text("{")
    assert read_usage(tmp_path) == Usage()
