"""Damaged files of every format against the loaders: each must become a volume or a refusal, soon and in little memory.

    .venv/bin/python -m benchmarks.fuzz_loaders --inputs 100000 --seed 1
    make fuzz                                            (guided by coverage, with atheris in .venv-fuzz)
    .venv/bin/python -m benchmarks.fuzz_loaders --seed 1 --show 4711 FOLDER

The first draws damage by what each format is made of, the same for the same seed. The second lets libFuzzer choose by
the lines of code that an input reaches. The third writes input 4711 of the first to FOLDER. Inputs are read in
processes of their own: one that ends its process, or doesn't come back, is counted and named like any other breach.

Bounds: `ALLOWED_BASE`, `ALLOWED_RATIO` and `ALLOWED_SECONDS` in `tests/fuzzing/judge.py`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

#: Seconds after which a process that says nothing is ended.
HANGS_AFTER = 30
#: The same for its first word: what is guided by coverage is instrumented as it is imported.
STARTS_WITHIN = 300
#: Inputs after which to say how many there were.
PROGRESS = 1000
#: Inputs that one process reads; a new one starts with little memory.
BATCH = 2500


@dataclass
class Tally:
    """Figures of one format."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    breaches: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    largest: int = 0


@dataclass
class Results:
    """Figures of all formats, and each kind of breach with its number and where one can be had."""

    tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    breaches: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, where: str, verdict: Any) -> None:
        """Count one verdict."""
        tally = self.tallies[name]
        tally.inputs += 1
        if (done := sum(one.inputs for one in self.tallies.values())) % PROGRESS == 0:
            print(f"{done} inputs", file=sys.stderr, flush=True)
        tally.outcomes.update(verdict.outcomes)
        tally.seconds += verdict.seconds
        tally.slowest = max(tally.slowest, verdict.seconds)
        tally.largest = max(tally.largest, verdict.allocated)
        if verdict.breach:
            self.breach(name, where, verdict.breach)

    def breach(self, name: str, where: str, what: str) -> None:
        """Count one breach, and say so at once: a run takes a while."""
        print(f"{name}: {what} [{where}]", file=sys.stderr, flush=True)
        self.tallies[name].breaches += 1
        self.breaches[f"{name}: {what}"].append(where)


def _verdicts(target: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """What a process sends; at the end its exit code, or None where it hung and was ended."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    hung = False
    try:
        wait = STARTS_WITHIN
        while not (hung := not ours.poll(wait)):
            yield ours.recv()
            wait = HANGS_AFTER
    except EOFError:
        pass
    finally:
        if hung:
            process.kill()
        process.join()
    yield None if hung else process.exitcode


def _by_seed(results: Results, folder: str, seed: int, formats: Sequence[str], indices: range) -> None:
    from benchmarks._fuzz_worker import by_seed, format_of

    while indices:
        done = 0
        for verdict in _verdicts(by_seed, folder, seed, formats, indices):
            if isinstance(verdict, tuple):
                results.add(verdict[0], f"--seed {seed} --show {indices[done]}", verdict[1])
                done += 1
            elif done < len(indices):
                name = format_of(indices[done], formats)
                results.tallies[name].inputs += 1
                results.breach(name, f"--seed {seed} --show {indices[done]}", _end(verdict))
                done += 1
        indices = indices[done:]


def _by_coverage(results: Results, folder: str, seed: int, name: str, runs: int, keep: Path) -> None:
    from benchmarks._fuzz_coverage import work

    while runs > 0:
        place, before = Path(folder, f"{name}-{runs}"), runs
        place.mkdir()
        for verdict in _verdicts(work, str(place), seed, name, runs):
            if isinstance(verdict, tuple):
                runs -= 1
                kept = _kept(place, keep, verdict[1].breach) if verdict[1].breach else ""
                results.add(name, kept, verdict[1])
            elif verdict != 0:
                runs -= 1
                results.tallies[name].inputs += 1
                results.breach(name, _kept(place, keep, _end(verdict)), _end(verdict))
        if runs == before:
            raise RuntimeError(f"{name}: the guided fuzzer ended without reading an input")
        seed += 1


def _kept(place: Path, keep: Path, what: str) -> str:
    """Copy the input that a process was at."""
    name = "".join(letter if letter.isalnum() else "_" for letter in what[:60])
    target = keep / f"{place.name}-{name}".replace(" ", "_")
    if not target.exists():
        shutil.copytree(place, target, ignore=shutil.ignore_patterns("corpus"))
    return str(target)


def _end(code: int | None) -> str:
    return f"no answer within {HANGS_AFTER} s" if code is None else f"the process ended with {code}"


def _print(results: Results, wall: float) -> None:
    print("| format | inputs | volumes | refused | ignored | slowest ms | mean ms | largest MiB | breaches |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: | --: |")
    codes: Counter[str] = Counter()
    for name, tally in results.tallies.items():
        codes += tally.outcomes
        volumes, ignored = tally.outcomes["volume"], tally.outcomes["ignored"]
        print(
            f"| {name} | {tally.inputs} | {volumes} | {tally.outcomes.total() - volumes - ignored} | {ignored}"
            f" | {tally.slowest * 1e3:.0f} | {tally.seconds / tally.inputs * 1e3:.1f} | {tally.largest / 2**20:.1f}"
            f" | {tally.breaches} |"
        )
    total = sum(tally.inputs for tally in results.tallies.values())
    print(f"\n{total} inputs in {wall:.0f} s; outcomes: " + ", ".join(f"{n} {code}" for code, n in codes.most_common()))
    print(f"breaches: {sum(tally.breaches for tally in results.tallies.values())}")
    for what, places in sorted(results.breaches.items(), key=lambda item: -len(item[1])):
        print(f"  {len(places)} x {what} [{places[0]}]")


def main() -> int:
    """Run, print the table, and return 1 where there was a breach."""
    from tests.fuzzing.seeds import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="of all formats together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--coverage", action="store_true", help="guided by coverage; needs atheris")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where inputs of breaches go (--coverage)")
    parser.add_argument("--show", nargs=2, metavar=("INDEX", "FOLDER"), help="write one input, and end")
    options = parser.parse_args()
    formats = options.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"unknown formats: {', '.join(sorted(unknown))}")
    if options.show:
        _show(options.seed, int(options.show[0]), formats, Path(options.show[1]))
        return 0
    # A process of one thread and one heap: what an input allocates is seen in it.
    os.environ.update(OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
    results, start = Results(), time.perf_counter()
    with _scratch() as folder, ThreadPoolExecutor(options.jobs) as pool:
        if options.coverage:
            share = -(-options.inputs // len(formats))
            work = [partial(_by_coverage, name=name, runs=share, keep=options.keep) for name in formats]
        else:
            batches = [range(options.inputs)[first : first + BATCH] for first in range(0, options.inputs, BATCH)]
            work = [partial(_by_seed, formats=formats, indices=batch) for batch in batches]
        for done in [pool.submit(one, results, folder, options.seed) for one in work]:
            done.result()
    _print(results, time.perf_counter() - start)
    return 1 if results.breaches else 0


def _show(seed: int, index: int, formats: Sequence[str], folder: Path) -> None:
    from benchmarks._fuzz_worker import damaged, format_of, write_input

    folder.mkdir(parents=True, exist_ok=True)
    write_input(folder, format_of(index, formats), damaged(seed, index, formats))


def _scratch() -> Any:
    from benchmarks._fuzz_worker import scratch

    return scratch()


if __name__ == "__main__":
    sys.exit(main())
