"""The library names no option of the command line; the command line knows every advice that the library gives."""

import ast
import re
from collections.abc import Iterator
from string import Formatter
from typing import TypeVar

from cli.advice import ADVICE
from tests.slices import reads_every_source
from tests.support.paths import ROOT, tree_of

pytestmark = reads_every_source

LIBRARY = sorted(path for package in ("retrieval", "index_store") for path in (ROOT / package).rglob("*.py"))
Node = TypeVar("Node", bound=ast.AST)
OPTION = re.compile(r"(?<![\w-])--[a-z]|diffsim-(index|search|eval|serve)\b")


def test_the_library_names_no_option() -> None:
    """Neither in what it says nor in docstrings and comments."""
    lines = {path: [line.strip() for line in path.read_text("utf-8").splitlines()] for path in LIBRARY}
    found = {str(path.relative_to(ROOT)): [line for line in lines[path] if OPTION.search(line)] for path in LIBRARY}
    assert {name: named for name, named in found.items() if named} == {}


def advice_of(call: ast.Call) -> str:
    """The advice that a call gives, where it is written out."""
    values = [keyword.value for keyword in call.keywords if keyword.arg == "advice"]
    return next((value.value for value in values if isinstance(value, ast.Constant)), "")


def nodes(kind: type[Node]) -> Iterator[Node]:
    for path in LIBRARY:
        yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, kind))


def test_every_advice_is_in_the_table_and_is_given() -> None:
    assert {advice_of(call) for call in nodes(ast.Call)} - {""} == set(ADVICE)
    assert list(ADVICE) == sorted(ADVICE)


def test_an_error_holds_the_facts_that_the_clause_names() -> None:
    missing = {}
    for error in (node.exc for node in nodes(ast.Raise)):
        if isinstance(error, ast.Call) and (advice := advice_of(error)):
            names = {keyword.arg for keyword in error.keywords}
            fields = [field for _, field, _, _ in Formatter().parse(ADVICE[advice]) if field]
            needed = {field.removesuffix("_option") for field in fields}  # --index X where there is a fact index
            if None not in names and needed - names:  # None: facts of another error are passed on
                missing[advice] = needed - names
    assert missing == {}
