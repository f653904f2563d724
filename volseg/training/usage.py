"""What a training used: wall time, processor time, and energy where the machine counts it.

Energy is what Linux's RAPL counters say (``/sys/class/powercap/intel-rapl:<n>/energy_uj``, on AMD processors too): that
of the processors, by whatever runs on them, and of no GPU. Where they can't be read, which needs root on most systems,
none is stated.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from volseg.config import Section
from volseg.files import write_atomically
from volseg.training.checkpoint import Progress
from volseg.training.loop import Report
from volseg.training.processes import ALONE, Processes

USAGE = "usage.json"
POWERCAP = Path("/sys/class/powercap")


class Usage(Section):
    """``usage.json``: of all parts of a run that was resumed; what a kill kept from the file isn't in it."""

    wall_seconds: float = 0.0
    """Time that passed."""
    cpu_seconds: float = 0.0
    """Processor time, all threads and processes together."""
    energy_joules: float | None = None
    """Energy of the machines' processors in that time; null where one doesn't say."""


def read_usage(folder: Path) -> Usage:
    """Usage of a fold; zeros where it isn't known."""
    try:
        return Usage.model_validate_json((folder / USAGE).read_bytes())
    except (OSError, ValidationError):
        return Usage()


class _Counter:
    """One processor's counter, which starts again at 0 after its largest value."""

    def __init__(self, folder: Path) -> None:
        self.path, self.joules = folder / "energy_uj", 0.0
        self.range = int((folder / "max_energy_range_uj").read_text())
        self.last = int(self.path.read_text())

    def read(self) -> float:
        now = int(self.path.read_text())
        self.joules += ((now - self.last) % (self.range + 1)) / 1e6
        self.last = now
        return self.joules


class Meter:
    """Counts from its making on, after what the fold's folder says of earlier parts.

    Parameters
    ----------
    folder
        Folder of the fold.
    processes
        Processes that train; each counts for itself, the first one on a machine its energy too. All ask at the same
        time.
    """

    def __init__(self, folder: Path, processes: Processes = ALONE) -> None:
        self.folder, self.before, self.processes = folder, read_usage(folder), processes
        self.wall, self.cpu = time.perf_counter(), _cpu_seconds()
        try:
            self.counters = [_Counter(path) for path in sorted(POWERCAP.glob("intel-rapl:[0-9]"))]
        except (OSError, ValueError):
            self.counters = []

    def now(self) -> Usage:
        """Usage until now. The counters wrap round within an hour: it must be asked for more often."""
        own = sum(counter.read() for counter in self.counters) if self.counters else None
        spent = self.processes.gathered((_cpu_seconds() - self.cpu, own if self.processes.first_here else 0.0))
        joules = [each for _, each in spent if each is not None]
        energy = sum(joules) if len(joules) == len(spent) else None
        earlier = self.before.energy_joules
        if self.before.wall_seconds and earlier is None:
            energy = None  # a part of the run isn't known
        return Usage(
            wall_seconds=round(self.before.wall_seconds + time.perf_counter() - self.wall, 1),
            cpu_seconds=round(self.before.cpu_seconds + sum(cpu for cpu, _ in spent), 1),
            energy_joules=None if energy is None else round((earlier or 0.0) + energy, 1),
        )

    def write(self) -> None:
        """Keep it in the fold's folder."""
        now = self.now()
        if self.processes.main:
            write_atomically(self.folder / USAGE, (json.dumps(now.model_dump(), indent=1) + "\n").encode())

    def around(self, report: Report) -> Report:
        """`report`, and keep the usage at each."""

        def reported(progress: Progress, row: dict[str, Any]) -> None:
            self.write()
            report(progress, row)

        return reported


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
