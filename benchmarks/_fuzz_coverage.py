"""`_fuzz_worker.by_coverage` with the modules that read files instrumented: libFuzzer sees which lines are reached."""

from __future__ import annotations

from multiprocessing.connection import Connection

import atheris

with atheris.instrument_imports(
    include=["volseg", "pydicom.filereader", "pydicom.values"], enable_loader_override=False
):
    from benchmarks._fuzz_worker import by_coverage


def work(connection: Connection, folder: str, seed_number: int, format_name: str, runs: int) -> None:
    """Run `by_coverage`."""
    by_coverage(connection, folder, seed_number, format_name, runs)
