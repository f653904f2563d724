"""What this machine has and does: memory, devices, number formats, and torch's threads.

Torch is imported where it is used: who asks for memory alone doesn't wait for it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from volseg.errors import UsageError

#: Of a process that has loaded a network, where the system doesn't say (measured: 310 to 340 MB).
PROCESS = 350_000_000

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``500MB``, ``4GB`` (4,000,000,000 bytes) or ``4GiB`` (4,294,967,296).

    Raises
    ------
    UsageError
        Anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(I?)B", text.strip().upper())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not an amount of memory: give one such as 500MB, 4GB or 4GiB")
    unit = 1024 ** "KMGT".index(match[2]) * 1024 if match[3] and match[2] else _UNITS[match[2]]
    return round(float(match[1]) * unit)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process can still take, by the system's account and its container's; None where neither says."""
    known = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit = (group / "memory.max").read_text().strip()
        taken = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        limit = "max"
    if limit != "max":
        known.append(max(0, int(limit) - int(taken["anon"])))
    return min(known, default=None)


def resident_bytes() -> int:
    """Memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return PROCESS
    import resource

    return pages * resource.getpagesize()


def peak_memory_mb() -> float | None:
    """Largest memory that this process has held so far, None where the system doesn't say."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def check_device(device: str) -> None:
    """Refuse a device that this machine doesn't have.

    Raises
    ------
    UsageError
        It names those that it has.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device, False):
        here = ", ".join(name for name, is_there in present.items() if is_there)
        raise UsageError(f"device {device!r} isn't there; this machine has {here}")


def native_bf16() -> bool:
    """Whether this processor computes in bf16 itself; where it doesn't, torch's emulation is 30 times slower."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch's operations don't start threads of their own; elsewhere they go on as before.

    Thousands of small operations with a second thread each took 4 to 40 times as long on two busy cores: the threads
    wait for each other.
    """
    import torch

    # Asking for it also fixes this thread's number, before the other's becomes what new threads begin with.
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's operations in this thread don't start others: what they give doesn't depend on the number of cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
