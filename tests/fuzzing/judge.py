"""What the loaders make of a folder of unknown content: a volume, a refusal, or a breach of what they promise."""

from __future__ import annotations

import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from volseg.errors import RefusalError
from volseg.labels.dicom_object import kind_of
from volseg.labels.read import load_labels
from volseg.loaders import find
from volseg.volume import LabelVolume, Volume

#: What a load may allocate beyond what the input's size explains, in bytes.
ALLOWED_BASE = 64 << 20
#: Bytes that each byte of input may become: DEFLATE packs up to 1032 into one, and a volume is held with its copy.
ALLOWED_RATIO = 2 * 1032
#: Seconds for one input.
ALLOWED_SECONDS = 10.0
#: Address space that a worker gets beyond what it has, so that a wild allocation fails instead of harming the machine.
_ADDRESS_SPACE = 2 << 30


@dataclass(frozen=True)
class Verdict:
    """What became of one input.

    Attributes
    ----------
    outcomes
        One a candidate: ``volume``, or the code of its refusal; one for each SEG or RTSTRUCT beside a volume:
        ``labels``, or the code; ``ignored`` alone where there is neither.
    breach
        What broke a promise, such as an exception that is none of volseg's; None where nothing did.
    seconds
        Of `find` and every `load`.
    allocated
        Peak of bytes allocated, by Python and NumPy or by the process as a whole, whichever is more.
    """

    outcomes: tuple[str, ...]
    breach: str | None
    seconds: float
    allocated: int


def judge(folder: Path, *, space: bool = False) -> Verdict:
    """Find and load all that a folder holds.

    Parameters
    ----------
    space
        Count address space as well: in a process of one heap, whose threads have run before (see `_Memory`).
    """
    size = sum(path.stat().st_size for path in folder.iterdir())
    outcomes: tuple[str, ...] = ("breach",)
    breach = None
    before = _Memory.now(reset=True)
    start = time.perf_counter()
    try:
        outcomes = tuple(_outcomes(folder)) or ("ignored",)
    except Exception as error:
        breach = _where(error)
    seconds = time.perf_counter() - start
    allocated = _Memory.now().growth(before, space)
    if breach is None and allocated > ALLOWED_BASE + ALLOWED_RATIO * size:
        breach = f"{allocated >> 20} MiB allocated for {size} bytes of input"
    if breach is None and seconds > ALLOWED_SECONDS:
        breach = f"{seconds:.0f} s"
    return Verdict(outcomes, breach, seconds, allocated)


def limit_memory() -> None:
    """Limit this process's address space, so that a wild allocation fails instead of harming the machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_Memory.now().space + _ADDRESS_SPACE, hard))


@dataclass(frozen=True)
class _Memory:
    """Bytes of this process: in use and highest, as address space, as resident memory, and as Python counts them.

    The highest address space can't be reset: an allocation below an earlier one that was never used stays unseen by it,
    and is seen where `tracemalloc` is on.
    """

    space: int
    space_peak: int
    resident: int
    resident_peak: int
    traced: int
    traced_peak: int

    @classmethod
    def now(cls, *, reset: bool = False) -> _Memory:
        """Figures of this moment; `reset` starts the peaks anew."""
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
            if tracemalloc.is_tracing():
                tracemalloc.reset_peak()
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        names = ("VmSize", "VmPeak", "VmRSS", "VmHWM")
        space, space_peak, resident, resident_peak = (int(lines[name].split()[0]) << 10 for name in names)
        return cls(space, space_peak, resident, resident_peak, *tracemalloc.get_traced_memory())

    def growth(self, before: _Memory, with_space: bool) -> int:
        """Highest since `before`, beyond what was in use then."""
        space = self.space_peak - before.space if with_space and self.space_peak > before.space_peak else 0
        return max(space, self.resident_peak - before.resident, self.traced_peak - before.traced)


def _outcomes(folder: Path) -> Iterator[str]:
    study = find(folder)
    volumes = []
    for candidate in study.candidates:
        if candidate.usable:
            volume = _tried(candidate.load)
            if isinstance(volume, Volume):
                assert candidate.geometry is not None
                assert volume.geometry.difference(candidate.geometry) is None
                volumes.append(volume)
            yield volume if isinstance(volume, str) else "volume"
        else:
            _check_reason(candidate.reason or "")
            yield candidate.code or "no code"
    for item in study.ignored:
        _check_reason(item.reason)
        if volumes and item.path.is_file() and kind_of(item.path):
            labels = _tried(partial(load_labels, item.path, volumes[0]))
            yield labels if isinstance(labels, str) else "labels"


def _tried(read: Callable[[], Volume | LabelVolume]) -> Volume | LabelVolume | str:
    """What is read, or the code of its refusal."""
    try:
        return read()
    except RefusalError as error:
        if _has_memory_error(error):
            raise
        _check_reason(error.reason)
        return error.code


def _check_reason(reason: str) -> None:
    # NumPy's words for an allocation that failed: a loader must refuse before it asks.
    assert "Unable to allocate" not in reason, reason
    assert len(reason.splitlines()) == 1, f"not one line: {reason!r}"


def _has_memory_error(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, MemoryError) or _has_memory_error(error.__cause__) or _has_memory_error(error.__context__)
    )


def _where(error: BaseException) -> str:
    """Kind of an exception and the place that raised it, the same for inputs that fail alike."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append((Path(code.co_filename).name, code.co_name, trace.tb_lineno))
        trace = trace.tb_next
    own = [place for place in places if place[0] != "judge.py"] or places
    name, function, line = own[-1]
    return f"{type(error).__name__} in {name}:{line} {function}: {str(error)[:120]}"
