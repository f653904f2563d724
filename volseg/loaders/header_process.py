"""The headers of a large folder, read by several processes: in one, Python runs a single thread at a time.

Plain processes, and no pool of `multiprocessing`, which would run the caller's own script again in each.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from volseg.loaders.classify import Found, classify
from volseg.loaders.dicom_header import tolerant

#: Most processes. More gain nothing: their answers are taken one after another.
MOST_PROCESSES = 8
#: Files that a process is asked for at once.
CHUNK = 100

_PROGRAM = "import sys; sys.path[:] = {path!r}; from volseg.loaders.header_process import serve; serve()"


def classify_all(paths: Sequence[Path]) -> Iterator[list[Found]]:
    """What `classify` says of each file, in their order, some at a time."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes = [_started() for _ in range(min(os.cpu_count() or 1, MOST_PROCESSES, len(chunks)))]
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def ask(chunk: Sequence[Path]) -> list[Found]:
        process = idle.get()
        try:
            return _answer(process, chunk)
        except (OSError, EOFError, pickle.UnpicklingError):
            # It died, of memory perhaps: its files are read here.
            return [classify(path) for path in chunk]
        finally:
            idle.put(process)

    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            yield from pool.map(ask, chunks)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _started() -> subprocess.Popen[bytes]:
    # It finds what this process finds, wherever it stands.
    program = _PROGRAM.format(path=sys.path)
    return subprocess.Popen(
        [sys.executable, "-B", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _answer(process: subprocess.Popen[bytes], chunk: Sequence[Path]) -> list[Found]:
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(chunk, process.stdin)
    process.stdin.flush()
    answer: list[Found] = pickle.load(process.stdout)
    return answer


def serve() -> None:
    """Answer until nobody asks any more: what such a process does."""
    with open(0, "rb") as asked, open(1, "wb") as answered, tolerant():
        while True:
            try:
                paths = pickle.load(asked)
            except EOFError:
                return
            pickle.dump([classify(path) for path in paths], answered)
            answered.flush()
