"""What a scan takes is known before, a bound is kept to, and what can't fit is refused."""

from __future__ import annotations

import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny import scan, threshold_model, thresholded, tiny_recipe
from volseg.config import Recipe
from volseg.errors import CODES, RefusalError, UsageError
from volseg.events import Event, Planned, Progress
from volseg.geometry import Geometry
from volseg.inference import Options, Segmenter, load_model, memory
from volseg.inference.engines.torch import TorchEngine
from volseg.inference.memory import plan_memory
from volseg.inference.stream import Placement
from volseg.machine import available_bytes, parse_size, resident_bytes
from volseg.network.unet import UNet
from volseg.volume import Volume

SHAPE = (21, 34, 60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500MB", 500_000_000),
        ("4GB", 4_000_000_000),
        ("4GiB", 4_294_967_296),
        ("1.5 gb", 1_500_000_000),
        ("64kib", 65_536),
        ("2TB", 2_000_000_000_000),
        ("123B", 123),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "4", "GB", "-4GB", "0GB", "4GBB", "4 G B", "1e3MB", "4XB", "nanGB", "4,5GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="500MB, 4GB or 4GiB"):
        parse_size(text)


def machine(root: Path, available_kb: int, limit: str | None = None, anon: int = 0) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal:       99 kB\nMemAvailable:   {available_kb} kB\n")
    if limit is not None:
        (root / "sys/fs/cgroup").mkdir(parents=True)
        (root / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
        (root / "sys/fs/cgroup/memory.stat").write_text(f"anon {anon}\nfile 77777\n")
    return root


def test_available_memory_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    for number, (limit, anon, expected) in enumerate(
        [(None, 0, 1_024_000), ("max", 0, 1_024_000), ("500000", 100_000, 400_000), ("500000", 600_000, 0)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert available_bytes(machine(folder, 1000, limit, anon)) == expected


def test_resident_memory_grows_with_what_is_held() -> None:
    # Pages of its own: what other tests gave back to the allocator is resident already.
    with mmap.mmap(-1, 64_000_000) as pages:
        before = resident_bytes()
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1
        assert 60e6 < resident_bytes() - before < 70e6


def volume_of(shape: tuple[int, int, int] = SHAPE) -> Volume:
    return Volume(scan(shape), Geometry(shape, np.eye(4)))


def engines(recipe: Recipe, *, leave_head: bool = False) -> list[TorchEngine]:
    return [TorchEngine(UNet.from_recipe(recipe), leave_head=leave_head)]


def test_a_plan_worked_by_hand() -> None:
    recipe = tiny_recipe(window=[8, 8, 8], spacing_mm=[1, 1, 1], orientation="RAS")
    plan = plan_memory(volume_of(), recipe, engines(recipe), None)
    voxels = 21 * 34 * 60
    assert plan.placement == Placement(in_file=False, overlap=True)
    assert (plan.scan, plan.tensor, plan.mask) == (2 * voxels, 4 * voxels, voxels)
    # 60 is the streaming axis: 8 open rows, 4 that are restored meanwhile, and at most 15 that wait for their block.
    row = 21 * 34 * 3 * 4
    assert 12 * row <= plan.slab <= 27 * row
    assert plan.restoring == 2 * 16 * row
    assert plan.network == 8 * 8 * 8 * 4 * (2 * 4 * 8 + 3) + memory.LIBRARIES
    rest = max(plan.preparing, plan.slab + plan.restoring + plan.network + plan.mask)
    assert plan.total == plan.process + plan.scan + plan.tensor + rest
    left = plan_memory(volume_of(), recipe, engines(recipe, leave_head=True), None)
    assert left.slab == plan.slab // 3 * 4
    assert left.restoring == (4 + 3) * plan.restoring // 3
    in_file = replace(plan, placement=Placement(in_file=True, overlap=False), slab=10**12)
    assert in_file.total == plan.total - plan.slab
    assert "slab 1,000,000 in a file" in str(in_file)


def test_the_slab_does_not_grow_with_the_scan() -> None:
    recipe = tiny_recipe(window=[8, 8, 8], spacing_mm=None)
    short, long = (plan_memory(volume_of((21, 34, size)), recipe, engines(recipe), None) for size in (80, 240))
    assert (long.slab, long.restoring, long.network) == (short.slab, short.restoring, short.network)
    assert long.scan == 3 * short.scan


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose size is known: nothing."""
    monkeypatch.setattr(memory, "resident_bytes", lambda: 0)


def test_a_bound_goes_from_rows_to_spare_to_a_file_to_a_refusal(quiet: None) -> None:
    recipe = tiny_recipe(window=[8, 8, 8], spacing_mm=None, network={"features": [1, 1]})
    volume = volume_of((90, 100, 110))
    placements = [Placement(overlap=True), Placement(overlap=False), Placement(in_file=True, overlap=False)]
    plans = [memory.plan_for(volume, recipe, engines(recipe), placement, 0) for placement in placements]
    totals = [plan.total for plan in plans]
    assert totals == sorted(set(totals), reverse=True)
    for bound, expected in zip(totals, placements, strict=True):
        assert plan_memory(volume, recipe, engines(recipe), bound).placement == expected
    with pytest.raises(RefusalError) as refused:
        plan_memory(volume, recipe, engines(recipe), totals[2] - 1)
    assert refused.value.code == "memory"
    assert "memory" in CODES
    assert f"--memory allows {(totals[2] - 1) / 1e6:,.0f} MB, and this scan needs" in str(refused.value)


def test_without_a_bound_the_machine_decides_and_nothing_is_refused(
    quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(window=[8, 8, 8])
    found = []
    for available in (None, 10**12, 0):
        monkeypatch.setattr(memory, "available_bytes", lambda given=available: given)
        found.append(plan_memory(volume_of(), recipe, engines(recipe), None).placement.in_file)
    assert found == [False, False, True]


def test_labels_do_not_depend_on_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threshold_model(tmp_path / "m")
    model = load_model(tmp_path / "m")
    volume = volume_of()
    heard: list[Event] = []
    whole = Segmenter(model).segment(volume, heard.append)
    assert np.array_equal(whole.mask.array, thresholded(volume.array))
    planned, *windows = heard
    count = whole.windows
    assert windows == [Progress(case="volume", done=n, count=count, stage="network") for n in range(count + 1)]
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    heard.clear()
    in_file = Segmenter(model, Options(memory=10**12)).segment(volume, heard.append)
    for plan, kept in ((planned, False), (heard[0], True)):
        assert isinstance(plan, Planned)
        assert ("in a file" in plan.text) == kept
        assert plan.text.startswith(f"{plan.total / 1e6:,.0f} MB")
    assert in_file.mask.array.tobytes() == whole.mask.array.tobytes()


def test_a_slab_in_a_file_leaves_nothing_even_when_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from volseg.inference.slab import Slab\n"
        "slab = Slab(100, (10, 10, 3), in_file=True)\n"
        "slab._ring[:] = 1\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"TMPDIR": str(tmp_path)}, check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []
