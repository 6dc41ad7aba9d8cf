"""Imports point downwards: a package imports packages of lower layers only, and files form no circle."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.slices import reads_every_source
from tests.support.paths import ROOT, tree_of

pytestmark = reads_every_source

# Bottom to top. Within a layer no package imports its neighbour. DESIGN.md says why.
LAYERS = (
    {"index_store"},
    {"errors", "types", "text", "version"},
    {"settings", "files", "progress"},
    {"images", "devices", "scoring"},
    {"models", "drawing"},
    {"encoding"},
    {"calibration"},
    {"search", "indexing", "metrics", "doctor"},
    {"evaluation", "grouping", "sample_images"},
    {"tuning"},
    {"serving"},
    {"cli"},
)
# `errors` passes the store's errors on to every package, and `files` its one atomic write.
KNOW_THE_STORE = {"index_store", "errors", "files", "encoding", "calibration", "indexing", "search", "grouping", "cli"}
TOP_LEVEL = ("cli", "retrieval", "index_store")
SOURCES = sorted(path for package in TOP_LEVEL for path in (ROOT / package).rglob("*.py"))
MODEL_LIBRARIES = {"torch", "diffusers", "transformers"}
MOST_FILES = 18


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its top, for type checkers, or inside a function."""
    found = set()
    for node in ast.walk(tree_of(path)):
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


def test_imports_point_downwards() -> None:
    wrong = []
    for path in (each for each in SOURCES if not lazy(each)):
        module = module_of(path)
        mine = package_of(module)
        for name in our_imports(path):
            other = package_of(name)
            if other != mine and layer_of(other) >= layer_of(mine):
                wrong.append(f"{module} may not import {name}")
            if other == "index_store" and mine not in KNOW_THE_STORE:
                wrong.append(f"{module} may not know the store, but imports {name}")
    assert wrong == []


def test_the_store_knows_no_model() -> None:
    store = [path for path in SOURCES if path.is_relative_to(ROOT / "index_store")]
    heavy = {path.name: {name.split(".")[0] for name in imports_of(path)} & MODEL_LIBRARIES for path in store}
    assert {name: found for name, found in heavy.items() if found} == {}
    assert len(store) > 40


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


def test_tests_of_one_group_are_known_by_their_ids(request: pytest.FixtureRequest) -> None:
    """pytest-xdist reads groups from ids; without them each process would import the model libraries and parse all."""
    is_grouped = bool(getattr(request.config.option, "loadgroup", False))
    assert request.node.nodeid.endswith("@sources") == is_grouped
