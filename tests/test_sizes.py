"""The sizes that CONTRIBUTING.md states: of modules, and of functions without their signature and docstring.

Arguments and branches are ruff's (pyproject.toml).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from statistics import median

from tests.conftest import ROOT

MODULE, FUNCTION, USUAL = 400, 60, 30

MODULES = sorted((ROOT / "volseg").rglob("*.py"))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return function.end_lineno - body[0].lineno + 1 if body and function.end_lineno else 0


def functions() -> Iterator[tuple[str, int]]:
    """(where, lines) of every function of the package."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", code_lines(node)


def test_lines_are_counted_without_signature_and_docstring() -> None:
    source = "def f(\n    a,\n):\n    '''One.\n\n    Two.\n    '''\n    b = a\n\n    return b\n"
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert code_lines(function) == 3


def test_no_module_is_too_long() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > MODULE} == {}


def test_no_function_is_too_long_and_nearly_all_are_short() -> None:
    sizes = dict(functions())
    assert {name: size for name, size in sizes.items() if size > FUNCTION} == {}
    assert median(sizes.values()) <= 10
    assert sum(size > USUAL for size in sizes.values()) <= 0.02 * len(sizes)
