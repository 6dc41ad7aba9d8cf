"""Where the project and its test data lie."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file, which several tests of the project read."""
    return ast.parse(path.read_text("utf-8"))
