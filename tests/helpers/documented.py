"""Blocks of code in Markdown pages, and stand-ins for the programs that their shell blocks call.

A shell block runs in bash as it is written. `volseg` is the true one, but trains two steps instead of minutes; of what
this machine may lack (a GPU, Slurm, Docker, a network), the stand-in checks the arguments and those of the `volseg`
inside.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]

#: Where the true programs are: a stand-in must not find itself.
OTHERS = "/usr/bin:/bin"


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes
    ----------
    page
        Page that it stands on, below the checkout.
    line
        Number of its first line.
    language
        Word after its fence; of an indented block, "sh" where a line of it begins with a command, and "" elsewhere.
    text
        Code without its indentation.
    """

    page: str
    line: int
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Fenced and indented blocks of a page, in lists too."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(name, text[: found.start()].count("\n") + 2, found[1], found[2])
    for found in re.finditer(r"(?:\A|(?<=\n\n))(?: {4,}\S.*\n(?:\n(?= {4}))?)+", text):
        code = dedent(found[0])
        language = "sh" if re.search(rf"^(\w+=\S+ )?([\w.]+/)*({'|'.join(STAND_INS)})\b", code, re.MULTILINE) else ""
        yield Block(name, text[: found.start()].count("\n") + 1, language, code)


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell block in `folder`, with the stand-ins before every other program."""
    programs = folder / "programs"
    programs.mkdir()
    for name in STAND_INS:
        script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.helpers.documented {name} "$@"\n'
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{OTHERS}", "PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1",
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "1", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "32",
        "SLURM_ARRAY_TASK_ID": "0",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-euc", block.text],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def volseg(arguments: Sequence[str]) -> int:
    """Run volseg; minutes of training become two steps."""
    if arguments[0] == "train":
        arguments = [*shlex.split(re.sub(r"--minutes \d+", "", shlex.join(arguments))), "--steps", "2"]
    return subprocess.run([sys.executable, "-m", "volseg", *arguments], check=False).returncode


def parsed(arguments: Sequence[str]) -> int:
    """Check a call of volseg that isn't run, from the word after `volseg` on."""
    from typer.main import get_command

    from volseg.cli.main import app

    command = get_command(app)
    name, *rest = arguments
    context = command.make_context("volseg", list(arguments))
    found = command.get_command(context, name)  # type: ignore[attr-defined]
    found.make_context(name, rest)
    return 0


def make(arguments: Sequence[str]) -> int:
    """Check that the targets are there."""
    command = ["make", "--dry-run", "-C", str(ROOT), *arguments]
    return subprocess.run(command, env=os.environ | {"PATH": OTHERS}, stdout=subprocess.DEVNULL, check=False).returncode


def pip(arguments: Sequence[str]) -> int:
    """Check what would be installed: the checkout, or the extras that it has."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command, wanted = arguments
    extras = re.fullmatch(rf"(?:\.|{project['name']})(?:\[([\w,]+)\])?", wanted)
    known = extras is not None and set((extras[1] or "train").split(",")) <= set(project["optional-dependencies"])
    return 0 if command == "install" and known else 1


def torchrun(arguments: Sequence[str]) -> int:
    """Check torchrun's own arguments, and volseg's."""
    from torch.distributed.run import get_args_parser

    call = get_args_parser().parse_args(list(arguments))
    return parsed(call.training_script_args) if call.module and call.training_script == "volseg" else 1


def accelerate(arguments: Sequence[str]) -> int:
    """Check the launcher's own arguments, and volseg's."""
    from accelerate.commands.launch import launch_command_parser

    call = launch_command_parser().parse_args(list(arguments)[1:])
    launched = arguments[0] == "launch" and call.module and call.training_script == "volseg"
    return parsed(call.training_script_args) if launched else 1


def srun(arguments: Sequence[str]) -> int:
    """Check the call that Slurm would start on each node."""
    start = next(index for index, word in enumerate(arguments) if not word.startswith("--"))
    program, *rest = arguments[start:]
    return {"torchrun": torchrun, "volseg": parsed}[program](rest)


def scontrol(arguments: Sequence[str]) -> int:
    """Name the nodes."""
    print("node1\nnode2")
    return 0 if list(arguments[:2]) == ["show", "hostnames"] else 1


def docker(arguments: Sequence[str]) -> int:
    """Check what is built against the Dockerfile, and the call inside the container."""
    if arguments[0] == "run":
        return parsed(arguments[arguments.index("volseg") + 1 :])
    declared = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    given = {word.partition("=")[0] for option, word in pairwise(arguments) if option == "--build-arg"}
    return 0 if arguments[0] == "build" and arguments[-1] == "." and given <= set(declared) else 1


def git(arguments: Sequence[str]) -> int:
    """Make the folder that a clone would, with what installing puts there."""
    programs = Path(arguments[2]) / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "pre-commit").symlink_to(shutil.which("pre-commit") or "")
    return 0 if arguments[0] == "clone" else 1


def pre_commit(arguments: Sequence[str]) -> int:
    """Check that there is something to install."""
    return 0 if list(arguments) == ["install"] and (ROOT / ".pre-commit-config.yaml").is_file() else 1


STAND_INS: dict[str, Callable[[Sequence[str]], int]] = {
    "volseg": volseg,
    "make": make,
    "pip": pip,
    "torchrun": torchrun,
    "accelerate": accelerate,
    "srun": srun,
    "scontrol": scontrol,
    "docker": docker,
    "git": git,
    "pre-commit": pre_commit,
}


if __name__ == "__main__":
    sys.exit(STAND_INS[sys.argv[1]](sys.argv[2:]))
