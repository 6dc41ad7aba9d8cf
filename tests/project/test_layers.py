"""Imports point downwards: a package imports packages of lower layers only, and files form no circle."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Bottom to top. Within a layer no package imports its neighbour. DESIGN.md says why.
LAYERS = (
    {"index_store"},
    {"errors", "types", "text", "version"},
    {"settings", "files", "progress"},
    {"images", "devices", "scoring"},
    {"models", "drawing"},
    {"encoding"},
    {"search", "indexing", "metrics", "doctor"},
    {"evaluation", "grouping", "sample_images"},
    {"tuning"},
    {"cli"},
)
# `errors` passes the store's errors on to every package, and `files` its one atomic write.
KNOW_THE_STORE = {"index_store", "errors", "files", "encoding", "indexing", "search", "grouping", "cli"}
TOP_LEVEL = ("cli", "retrieval", "index_store")
SOURCES = sorted(path for package in TOP_LEVEL for path in (ROOT / package).rglob("*.py"))
MOST_FILES = 18


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its top, for type checkers, or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which package it reaches"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return frozenset(found)


def our_imports(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] in TOP_LEVEL}


def package_of(module: str) -> str:
    """``retrieval.search.engine`` belongs to ``search``, ``retrieval.errors`` to ``errors``, ``cli.output`` to ``cli``.

    A module directly below ``retrieval`` is a package of its own here.
    """
    first, *rest = module.split(".")
    return rest[0] if first == "retrieval" and rest else first


def layer_of(package: str) -> int:
    [number] = [number for number, packages in enumerate(LAYERS) if package in packages]
    return number


def lazy(path: Path) -> bool:
    """The package's own table of names reaches every layer, and imports a module when its name is first used."""
    return path == ROOT / "retrieval" / "__init__.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_downwards(path: Path) -> None:
    if lazy(path):
        return
    mine = package_of(module_of(path))
    for name in our_imports(path):
        other = package_of(name)
        assert other == mine or layer_of(other) < layer_of(mine), f"{mine} may not import {name}"
        assert other != "index_store" or mine in KNOW_THE_STORE, f"{mine} may not know the store, but imports {name}"


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.is_relative_to(ROOT / "index_store")], ids=lambda path: path.name
)
def test_the_store_knows_no_model(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports_of(path)} & {"torch", "diffusers", "transformers"}


def test_files_form_no_circle() -> None:
    waiting = {name: {other for other in our_imports(path) if other != name} for name, path in MODULES.items()}
    waiting.pop("retrieval")  # see lazy()
    for needed in waiting.values():
        needed.discard("retrieval")
    while free := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert sorted(waiting) == []


def test_folders_are_small() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")} | {path.parent for path in SOURCES}
    crowded = {folder.relative_to(ROOT).as_posix(): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in crowded.items() if count > MOST_FILES} == {}
