"""What every test may use: the data folders, and hypothesis settings that give the same examples everywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# No deadline: the first example of a test pays for imports. Derandomised: a change that breaks a property breaks it for
# everybody and at once. `--hypothesis-profile=search` looks further.
settings.register_profile("volseg", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("volseg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """One thread a test, so that sums don't depend on the machine and `-n` has a core for each of its processes.

    A test that wants more sets them itself; what it leaves behind is undone here before the next.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """`sample_data/` of the checkout."""
    return ROOT / "sample_data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout, read-only; what may not be redistributed is there alone.

    A clone elsewhere lacks it, and its tests then say so; ``.ci/run`` refuses to run without it.
    """
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}: this test needs real scans that aren't part of the repository")
    return path
