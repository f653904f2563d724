"""Runs in the peers' environment: converts folders with dicom2nifti, each in a process forked from this one.

Importing dicom2nifti takes seconds, so it is done once. ``python dicom2nifti_server.py SOCKET`` answers each connection
to SOCKET, which sends (folder, empty folder for the results), with the last line that dicom2nifti said.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from multiprocessing.connection import Connection, Listener
from pathlib import Path


def _convert(connection: Connection[str, tuple[str, str]]) -> None:
    folder, out = connection.recv()
    said = Path(out, "said.txt")
    with said.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            importlib.import_module("dicom2nifti").convert_directory(folder, out)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send((said.read_text(errors="replace").strip().splitlines() or [""])[-1])


def main() -> None:
    """Serve until killed."""
    importlib.import_module("dicom2nifti")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the children aren't waited for
    with Listener(sys.argv[1]) as listener:
        while True:
            with listener.accept() as connection:
                if os.fork() == 0:
                    _convert(connection)
                    os._exit(0)


if __name__ == "__main__":
    main()
