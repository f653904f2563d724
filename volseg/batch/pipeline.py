"""Cases one after another, the stages of neighbours at the same time.

While the network works on a case, in the calling thread and with all cores, one thread prepares the next case and
another writes the last. At most one case is ahead and one behind. Each stage does for a case what it would do alone:
results don't depend on the overlap.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from volseg.batch.case import Case
from volseg.events import Cancel, CaseBegun, CaseDone, Listener, nobody
from volseg.geometry import Geometry
from volseg.machine import available_bytes, single_threads
from volseg.results.case import CaseResult


def run_cases(cases: Sequence[Case], listener: Listener = nobody, cancel: Cancel | None = None) -> list[CaseResult]:
    """Run every case, and return their results in the same order.

    What a case doesn't account for itself, such as an interrupt, ends the others too: what is being written then is
    still written, and nothing else is begun.

    Parameters
    ----------
    cases
        Cases, none of which was begun.
    listener
        The listener: it hears of a case when its turn with the network comes, and of its result from the thread that
        writes, in order.
    cancel
        The token that ends the run before the next case.

    Raises
    ------
    CancelledError
        `cancel` was told so.
    """
    cancel = cancel or Cancel()
    stop = threading.Event()
    results: list[CaseResult] = []

    def write(case: Case) -> None:
        results.append(case.write())
        listener(CaseDone(case=case.name, result=results[-1]))

    with single_threads(2) as pool:
        prepared: Future[None] | None = None
        written: Future[None] | None = None
        try:
            for number, case in enumerate(cases):
                cancel.raise_if_cancelled()
                listener(CaseBegun(case=case.name, number=number + 1, count=len(cases)))
                # With nothing beside it, it has all cores.
                case.prepare(stop) if prepared is None else prepared.result()
                overlap = number + 1 < len(cases) and fit_together(case, cases[number + 1])
                prepared = pool.submit(cases[number + 1].prepare, stop) if overlap else None
                case.run()
                if written is not None:
                    written.result()
                written = pool.submit(write, case)
                if not overlap:
                    written.result()
        finally:
            stop.set()
    return results


def fit_together(case: Case, following: Case) -> bool:
    """Whether the memory suffices to prepare a case while another, that is prepared, runs.

    With ``--memory`` never: the plan that was said is for one case. Else where both fit the machine as if nothing of
    what `case` takes were taken yet. What `following` takes isn't known before it is loaded: as much as `case`, or more
    by as many times as it has more voxels or covers more of the body.
    """
    available, grids = available_bytes(), (case.candidate.geometry, following.candidate.geometry)
    if case.plan is None or case.job.settings.memory is not None:
        return False
    if available is None or None in grids:  # what has no geometry isn't loaded
        return True
    (voxels, volume_ml), (more_voxels, more_ml) = (_size(grid) for grid in grids if grid is not None)
    growth = max(1.0, more_voxels / voxels, more_ml / volume_ml)
    return (case.plan.total - case.plan.process) * (1 + growth) <= available


def _size(grid: Geometry) -> tuple[int, float]:
    voxels = math.prod(grid.shape)
    return voxels, voxels * grid.voxel_volume_ml
