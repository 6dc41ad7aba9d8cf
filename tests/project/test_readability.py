"""Files are short, functions are shorter, and no two classes share a name."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

from tests.slices import reads_every_source
from tests.support.paths import ROOT, tree_of

pytestmark = reads_every_source

SOURCES = sorted(path for package in ("cli", "retrieval", "index_store") for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_FILE_LINES = 300
MOST_FUNCTION_LINES = 50
MOST_LINES_OF_NINE_IN_TEN = 16

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def length(function: Function) -> int:
    """Lines from ``def`` to the end of the body, without the docstring; decorators do not count."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return lines


def functions_of(path: Path) -> list[Function]:
    """Functions, methods and the functions inside them."""
    return [node for node in nodes_of(path) if isinstance(node, Function)]


def test_files_and_functions_stay_readable() -> None:
    files = {path: len(path.read_text("utf-8").splitlines()) for path in (*SOURCES, *TESTS)}
    assert {str(path.relative_to(ROOT)): lines for path, lines in files.items() if lines > MOST_FILE_LINES} == {}
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": length(function)
        for path in files
        for function in functions_of(path)
    }
    assert {name: lines for name, lines in long.items() if lines > MOST_FUNCTION_LINES} == {}


def test_nine_functions_in_ten_are_short() -> None:
    lengths = sorted(length(function) for path in SOURCES for function in functions_of(path))
    assert lengths[len(lengths) * 9 // 10] <= MOST_LINES_OF_NINE_IN_TEN


def test_a_class_name_means_one_thing() -> None:
    names = Counter(node.name for path in SOURCES for node in nodes_of(path) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []
