"""Every row against every reader, written as a table in Markdown.

Run it from the root of the checkout, after ``make peers`` for dicom2nifti and dcm2niix::

    .venv/bin/python -m benchmarks.geometry.table -o benchmarks/geometry/TABLE.md

Each reader reads each row in a process of its own, so that a crash or a hang is a verdict and not the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks._machine import processor
from benchmarks.geometry.damages import ROWS
from benchmarks.geometry.readers import PEERS, READERS, Job, Reader, run
from benchmarks.geometry.truth import Row, Truth
from benchmarks.geometry.verdict import VERDICTS, Found, summary, verdict

TIMEOUT_S = 60
#: Verdicts that are listed with what the reader gave.
FAULTS = ("SILENTLY WRONG", "part", "crash", "needless refusal")
#: A reader that believes a header of 65535 x 65535 pixels must not take the machine with it.
MEMORY_BYTES = 16 << 30


@dataclass(frozen=True)
class Cell:
    """One reader's verdict on one row, and what it gave."""

    verdict: str
    detail: str


def _work(connection: Connection, name: str, job: Job) -> None:
    """Read in a child process; what libraries print is dropped."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    connection.send(run(next(reader for reader in READERS if reader.name == name), job))


def call(reader: Reader, job: Job) -> Found:
    """What a reader gives, from a process of its own."""
    context = multiprocessing.get_context("forkserver")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(its, reader.name, job))
    process.start()
    its.close()
    try:
        found: Found = mine.recv() if mine.poll(TIMEOUT_S) else Found(error=f"crash: longer than {TIMEOUT_S} s")
    except EOFError:
        process.join()
        found = Found(error=f"crash: exit code {process.exitcode}")
    process.kill()
    process.join()
    return found


@contextmanager
def dicom2nifti_server() -> Iterator[str]:
    """Address at which dicom2nifti can be asked; empty where it isn't installed."""
    if not (PEERS / "python").exists():
        yield ""
        return
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        script = Path(__file__).with_name("dicom2nifti_server.py")
        server = subprocess.Popen([PEERS / "python", script, address], stderr=subprocess.DEVNULL)
        while server.poll() is None and not Path(address).exists():
            time.sleep(0.1)
        try:
            yield address
        finally:
            server.kill()
            server.wait()


def judge(row: Row, readers: Sequence[Reader], socket: str) -> list[Cell]:
    """Write a row's files and let each reader have them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = row.make(folder)
        job = Job(folder, folder / truth.file if truth.file else None, socket)
        return [_cell(reader, row, truth, job) for reader in readers]


def _cell(reader: Reader, row: Row, truth: Truth, job: Job) -> Cell:
    if row.kind not in reader.kinds:
        return Cell("", "")
    found = call(reader, job)
    if found.error == "not run":
        return Cell("not run", "")
    detail = summary(found).replace(str(job.folder), ".")
    if reader.name == "volseg" and not found.volumes:
        named = "" if truth.codes.intersection(found.codes) or not truth.codes else ", not the reason"
        detail = f"{', '.join(sorted(set(found.codes)))}{named}: {detail}"
    return Cell(verdict(truth, found), detail)


def table(rows: Sequence[Row], cells: Sequence[Sequence[Cell]], readers: Sequence[Reader] = READERS) -> str:
    """The page."""
    counts = [Counter(line[column].verdict for line in cells) for column in range(len(readers))]
    lines = [
        "# Damaged and complicated input: who gives what",
        "",
        f"{len(rows)} ways to damage or complicate a DICOM series, a NIfTI, NRRD or MetaImage file, made from the data"
        " in `sample_data` by the functions of these names in `benchmarks/geometry/damages/`; each reader's answer is"
        " compared with the truth that the function states. Made by",
        "",
        "    make peers",
        "    .venv/bin/python -m benchmarks.geometry.table -o benchmarks/geometry/TABLE.md",
        "",
        *(f"- **{name or '(empty)'}**: {meaning}." for name, meaning in VERDICTS.items()),
        "",
        "A single slice that is given beside the true volumes (a scout, a screenshot) isn't judged. Where refusing is"
        " right, a faithful answer, if there is one (a sheared affine for a tilted gantry), is right as well.",
        "",
        _line("", [reader.name for reader in readers]),
        _line("---", ["---:"] * len(readers)),
        *(
            _line(name, [str(count[name]) for count in counts])
            for name in VERDICTS
            if name and any(count[name] for count in counts)
        ),
        "",
        "Versions: " + "; ".join(reader.version for reader in readers) + f"; Python {platform.python_version()}.",
        f"Machine: {processor()}, {os.cpu_count()} cores, {platform.system()}.",
        "",
        "How each is called:",
        "",
        *(f"- {' '.join((reader.read.__doc__ or '').split())}" for reader in readers),
        "",
        "## Rows",
        "",
        _line("row", [reader.name for reader in readers]),
        _line("---", ["---"] * len(readers)),
        *(
            _line(f"`{row.name}` {row.sentence}", [_shown(cell) for cell in line])
            for row, line in zip(rows, cells, strict=True)
        ),
        "",
        "## What was silently wrong, or needlessly refused",
        "",
        _line("row", ["reader", "verdict", "what it gave or said"]),
        _line("---", ["---"] * 3),
        *(
            _line(f"`{row.name}`", [reader.name, cell.verdict, _plain(cell.detail)])
            for row, line in zip(rows, cells, strict=True)
            for reader, cell in zip(readers, line, strict=True)
            if cell.verdict in ("SILENTLY WRONG", "part", "crash", "needless refusal")
            or "not the reason" in cell.detail
        ),
    ]
    return "\n".join(lines) + "\n"


def _line(first: str, others: Sequence[str]) -> str:
    return f"| {' | '.join([first, *others])} |"


def _shown(cell: Cell) -> str:
    return f"**{cell.verdict}**" if cell.verdict in ("SILENTLY WRONG", "crash") else cell.verdict


def _plain(text: str) -> str:
    """One short line that breaks no table and names no folder of this machine."""
    words = " ".join(text.split()).replace("|", "/").replace("`", "'")
    return " ".join(Path(word).name if word.count("/") > 2 else word for word in words.split())[:160]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table, or print the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to judge; all of them unless given")
    parser.add_argument("-o", "--output", type=Path, help="file to write; printed unless given")
    parser.add_argument("-r", "--reader", action="append", help="readers to judge; all of them unless given")
    options = parser.parse_args(arguments)
    rows = [ROWS[name] for name in options.rows] or list(ROWS.values())
    readers = [reader for reader in READERS if not options.reader or reader.name in options.reader]
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.set_forkserver_preload(["benchmarks.geometry.preload"])
    with dicom2nifti_server() as socket, ThreadPoolExecutor(2) as pool:
        cells = []
        for number, line in enumerate(pool.map(lambda row: judge(row, readers, socket), rows), start=1):
            cells.append(line)
            if number % 20 == 0:
                print(f"{number} of {len(rows)} rows", file=sys.stderr)
    page = table(rows, cells, readers)
    if options.output:
        options.output.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
