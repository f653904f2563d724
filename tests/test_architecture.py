"""The layout that the design settles: who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "volseg"

#: From the lowest up: a part imports only from lower ones, which come before it.
LAYERS = (
    "errors",
    "files",
    "text",
    "machine",
    "events",
    "geometry",
    "resample",
    "volume",
    "results",
    "interop",
    "config",
    "loaders",
    "labels",
    "datasets",
    "preprocess",
    "network",
    "models",
    "postprocess",
    "inference",
    "evaluation",
    "report",
    "export",
    "training",
    "planning",
    "batch",
    "send",
    "serve",
    "cli",
)

#: Where a library may be imported: a pattern for paths below `volseg/`.
HOMES = {
    "nibabel": r"interop\.py|loaders/formats/nifti_header\.py|export/nifti\.py",
    "pydicom": r"(loaders/dicom|labels)/\w+\.py|export/(dicom_\w+|identity)\.py|send/instances\.py",
    "pynetdicom": r"send/storescu\.py",
    "highdicom": r"export/dicom_sr\.py",
    "SimpleITK": r"interop\.py",
    "imagecodecs": r"loaders/dicom/codec_process\.py",
    "yaml": r"config/read\.py",
    "safetensors": r"models/\w+\.py|training/cache\.py",
    "matplotlib": r"training/curves\.py",
    "PIL": r"report/\w+\.py",
    "monai": r"interop\.py|evaluation/\w+\.py|training/\w+\.py",
    "torch": r"((preprocess|network|models|inference|training)/.+|planning/probe|batch/case)\.py"
    r"|(machine|resample|interop)\.py",
    "openvino": r"inference/engines/openvino\.py",
    "accelerate": r"training/processes\.py",
    "rich": r"cli/\w+\.py",
    "typer": r"cli/\w+\.py",
    # Results depend on neither the network nor the environment.
    "socket": r"serve/\w+\.py",
    "http": r"(serve|send)/\w+\.py",
    "urllib": r"(serve|send)/\w+\.py",
    "requests": r"(?!)",
}
#: Never loaded by importing volseg or asking for help: each costs a tenth of a second to several seconds.
HEAVY = {
    "torch",
    "highdicom",
    "matplotlib",
    "SimpleITK",
    "monai",
    "scipy",
    "nibabel",
    "pydicom",
    "pynetdicom",
    "cc3d",
    "openvino",
    "accelerate",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it; `package` is where its relative imports start."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> Iterator[str]:
    package = ".".join(["volseg", *path.relative_to(PACKAGE).parts[:-1]])
    return imports(ast.parse(path.read_text(encoding="utf-8")), package)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parts_imported(names: Iterator[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("volseg.")} & set(LAYERS)


def layered() -> list[Path]:
    return [path for path in MODULES if part_of(path) not in ("__init__", "__main__")]


def test_imports_sees_every_way_to_import() -> None:
    source = """
import volseg.cli, os.path
from volseg import training
from volseg.export import save
def late():
    if True:
        from ..report import html
        from . import nifti
"""
    assert set(imports(ast.parse(source), "volseg.loaders")) == {
        "volseg.cli",
        "os.path",
        "volseg.training",
        "volseg.export.save",
        "volseg.report.html",
        "volseg.loaders.nifti",
    }


def test_every_part_is_in_the_list() -> None:
    assert {part_of(path) for path in layered()} <= set(LAYERS)


@pytest.mark.parametrize("path", layered(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_from_lower_parts(path: Path) -> None:
    own = LAYERS.index(part_of(path))
    higher = {part for part in parts_imported(imports_of(path)) if LAYERS.index(part) > own}
    assert higher == set()


def module_of(path: Path) -> str:
    """Dotted name of a module's file; of a package that of its folder."""
    parts = ["volseg", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph() -> dict[str, set[str]]:
    """The modules that each module imports, anywhere in it, by dotted name."""
    modules = {module_of(path) for path in MODULES}

    def imported(name: str) -> str | None:
        # Of `from volseg.volume import Label`, the module is what precedes the name.
        return name if name in modules else name.rpartition(".")[0] if name.startswith("volseg.") else None

    return {module_of(path): {found for name in imports_of(path) if (found := imported(name))} for path in MODULES}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that can each be reached from the others: Tarjan's strongly connected components."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            start = stack.index(node)
            members, stack[start:] = sorted(stack[start:]), []
            if len(members) > 1 or node in edges.get(node, ()):
                found.append(members)

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


def test_circles_are_found() -> None:
    line = {"a": {"b"}, "b": {"c"}, "c": set[str](), "d": {"a", "c"}}
    assert circles(line) == []
    assert circles({**line, "c": {"a"}}) == [["a", "b", "c"]]
    assert circles({**line, "d": {"d"}}) == [["d"]]
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a", "d"}, "d": {"c"}}) == [["a", "b"], ["c", "d"]]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


@pytest.mark.parametrize("library", HOMES)
def test_a_library_lives_in_its_own_modules(library: str) -> None:
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(name.split(".")[0] == library for name in imports_of(path))
    ]
    assert [user for user in users if not re.fullmatch(HOMES[library], user)] == []


def test_only_the_command_line_prints() -> None:
    def speaks(path: Path) -> bool:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                return True
            # Of sys alone: the process that one starts has such pipes too.
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
                return True
        return False

    assert [path for path in layered() if part_of(path) != "cli" and speaks(path)] == []


def test_nothing_reads_the_environment() -> None:
    def reads(path: Path) -> bool:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return any(isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") for node in ast.walk(tree))

    assert [path for path in MODULES if reads(path)] == []


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


COMMANDS = (
    "",
    "inspect",
    "plan",
    "train",
    "predict",
    "evaluate",
    "convert",
    "send",
    "model",
    "model pack",
    "model import-nnunet",
)
CALLS = [command.split() for command in COMMANDS]


@pytest.mark.parametrize(
    "code",
    [
        "import volseg; dir(volseg)",
        "import volseg.cli.main",
        *(f"import volseg.cli.main as m; m.app({[*call, '--help']!r}, standalone_mode=False)" for call in CALLS),
    ],
)
def test_help_loads_nothing_heavy(code: str) -> None:
    loaded = run_python(f"{code}\nimport json, sys; print('\\n' + json.dumps(list(sys.modules)))").stdout
    modules = {name.split(".")[0] for name in json.loads(loaded.splitlines()[-1])}
    assert "volseg" in modules
    assert modules & HEAVY == set()


def test_help_comes_within_half_a_second() -> None:
    def seconds() -> float:
        # Processor time: it doesn't count the time that other processes on the machine take.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "volseg", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_constraints_pin_every_dependency_and_name_no_index() -> None:
    root = PACKAGE.parent
    lines = [
        line for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line)] == []
    pinned = {line.split("==")[0] for line in lines}
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    wanted = set(re.findall(r'^    "([a-z0-9-]+)[<>=]', project, flags=re.MULTILINE))
    assert {"torch", "pytest"} <= wanted
    assert wanted <= pinned


def test_no_test_imports_from_another() -> None:
    tests = PACKAGE.parent / "tests"
    found = {
        f"{path.relative_to(tests)}: {node.module}"
        for path in tests.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and re.search(r"\.test_\w+$", node.module or "")
    }
    assert found == set()
