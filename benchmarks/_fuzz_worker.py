"""Processes of `fuzz_loaders`: they damage inputs, let the loaders read them, and send a verdict for each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.fuzzing.judge import judge, limit_memory
from tests.fuzzing.mutators import mutate
from tests.fuzzing.seeds import FORMATS, SLOW, seed

#: What libFuzzer may make of an input at most, in bytes.
_LONGEST = 1 << 16


def format_of(index: int, formats: Sequence[str]) -> str:
    """Formats take turns, the slow ones a tenth as often."""
    often = [name for name in formats if name not in SLOW]
    turns = [*often * (10 if often else 0), *(name for name in formats if name in SLOW)]
    return turns[index % len(turns)]


def damaged(seed_number: int, index: int, formats: Sequence[str]) -> bytes:
    """Content of the damaged file of input `index`; the same for the same seed, format and index."""
    name = format_of(index, formats)
    one = seed(name)
    return mutate(Random(f"{seed_number} {name} {index}"), name, one.files[one.target])


def write_input(folder: Path, format_name: str, content: bytes) -> None:
    """Write the files of one input: those that are fine, and the damaged one."""
    one = seed(format_name)
    for name, fine in one.files.items():
        (folder / name).write_bytes(content if name == one.target else fine)


def by_seed(connection: Connection, folder: str, seed_number: int, formats: Sequence[str], indices: range) -> None:
    """Judge the inputs of `indices`."""
    places = {name: _prepare(Path(folder), name) for name in formats}
    limit_memory()
    for index in indices:
        name = format_of(index, formats)
        (places[name] / seed(name).target).write_bytes(damaged(seed_number, index, formats))
        connection.send((name, judge(places[name], space=True)))


def by_coverage(connection: Connection, folder: str, seed_number: int, format_name: str, runs: int) -> None:
    """Judge inputs that libFuzzer chooses by the lines of code that they reach; it ends this process."""
    # Not in volseg's own environment; the modules that it instruments are those that `_fuzz_coverage` imports.
    import atheris

    place = _prepare(Path(folder), format_name)
    target = place / seed(format_name).target
    corpus = Path(folder, "corpus")
    corpus.mkdir(exist_ok=True)
    (corpus / "seed").write_bytes(target.read_bytes())
    left = runs

    def one_input(content: bytes) -> None:
        nonlocal left
        target.write_bytes(content)
        if left > 0:
            connection.send((format_name, judge(place, space=True)))
        left -= 1

    options = f"-runs={runs} -seed={seed_number} -max_len={_LONGEST} -rss_limit_mb=0 -timeout=0 -verbosity=0"
    atheris.Setup(
        ["fuzz", *options.split(), f"-artifact_prefix={folder}/", str(corpus)],
        one_input,
        # By name: `Fuzz` puts the real `Mutate` in its place.
        custom_mutator=_mutator(lambda content, longest: atheris.Mutate(content, longest), format_name),
    )
    limit_memory()
    atheris.Fuzz()


def _mutator(by_bytes: Callable[[bytes, int], bytes], format_name: str) -> Callable[[bytes, int, int], bytes]:
    def change(content: bytes, longest: int, number: int) -> bytes:
        random = Random(number)
        changed = by_bytes(content, longest) if random.random() < 0.5 else mutate(random, format_name, content)
        return changed[:longest]

    return change


def _prepare(folder: Path, format_name: str) -> Path:
    """Folder of one format's input, read once: the imports and caches of the first reading are not the input's."""
    place = folder / f"{os.getpid()}-{FORMATS.index(format_name)}"
    place.mkdir()
    one = seed(format_name)
    write_input(place, format_name, one.files[one.target])
    judge(place)
    return place


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is one: thousands of small files are written."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
