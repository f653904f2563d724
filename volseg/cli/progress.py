"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds between plain lines, so that a log stays readable.
PLAIN_EVERY_S = 15.0


#: Characters of a bar.
BAR_WIDTH = 30


def bar(done: int, total: int) -> str:
    """A bar, and the numbers that it shows."""
    filled = BAR_WIDTH * done // max(total, 1)
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done} of {total}"


class Line:
    """One line that says where a task stands; `update` may be called as often as wanted, and by any thread."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._printed = -PLAIN_EVERY_S
        self._lock = threading.Lock()

    def update(self, text: str) -> None:
        """Replace the live line, or print a plain one if the last is long enough ago."""
        with self._lock:
            if self._live:
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            elif time.monotonic() - self._printed >= PLAIN_EVERY_S:
                self._printed = time.monotonic()
                print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            print(f"\r\033[K{text}" if self._live else text, file=sys.stderr, flush=True)


@contextmanager
def progress_line() -> Iterator[Line]:
    """A `Line` whose live text is cleared at the end, also of a failure."""
    line = Line()
    try:
        yield line
    finally:
        if line._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
