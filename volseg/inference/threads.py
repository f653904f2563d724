"""Threads beside the network."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch's operations don't start threads of their own; elsewhere they go on as before.

    Thousands of small operations with a second thread each took 4 to 40 times as long on two busy cores: the threads
    wait for each other.
    """
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
