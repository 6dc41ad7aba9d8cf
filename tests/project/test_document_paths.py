"""Paths in the documents exist; the map of the code has its folders, its layers, and two ways through it."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, code_spans, read, rows, section
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", read(name))
    broken = [link for link in links if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()]
    assert broken == []


def paths_in(name: str) -> list[Path]:
    """Files and folders of the project that a document's code spans name, from the root or from its own folder."""
    spans = [span for span in code_spans(read(name)) if re.fullmatch(r"[\w./-]+(?:\.py|\.md|/)", span)]
    own = (ROOT / name).parent
    return [
        own / span if own.joinpath(span).exists() else ROOT / span for span in spans if not span.startswith(("/", "~"))
    ]


@pytest.mark.parametrize(
    "name", ["README.md", "DESIGN.md", "LOG.md", "retrieval/README.md", "retrieval/models/README.md"]
)
def test_paths_exist(name: str) -> None:
    paths = paths_in(name)
    assert paths or name in ("DESIGN.md", "LOG.md")
    places = (ROOT, ROOT / "retrieval", ROOT / "retrieval" / "evaluation")  # "models/registry.py" says enough
    missing = [
        path.relative_to(ROOT) for path in paths if not any((at / path.relative_to(ROOT)).exists() for at in places)
    ]
    assert [path.as_posix() for path in missing] == []


def folders_of(package: str) -> set[str]:
    return {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


def test_the_map_has_every_folder_and_module() -> None:
    text = read("retrieval/README.md")
    named = set(re.findall(r"`([\w.]+)/?`", section(text, "Folders")))
    modules = {path.name for path in (ROOT / "retrieval").glob("*.py")} - {"__init__.py"}
    assert (folders_of("retrieval") | modules) - named == set()
    layers = set(re.findall(r"`([\w.]+)/?`", section(text, "Layers, bottom to top")))
    assert (folders_of("retrieval") | modules) - layers == set()
    readme = set(code_spans(section(read("README.md"), "Find your way")))
    assert {f"retrieval/{folder}/" for folder in folders_of("retrieval")} - readme == set()


def test_the_map_has_the_layers_that_are_tested() -> None:
    from tests.project.test_layers import KNOW_THE_STORE, LAYERS

    cells = [row[1] for row in rows(section(read("retrieval/README.md"), "Layers, bottom to top"))[1:]]
    stated = [set(re.findall(r"`(\w+)[./]", cell)) for cell in cells]
    assert stated == list(LAYERS)
    starred = {name for cell in cells for name in re.findall(r"`(\w+)[^`]*` \*", cell)}
    assert starred == KNOW_THE_STORE - {"index_store"}


def module_of(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function, and every name from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("heading", ["Follow a search", "Follow a build"])
def test_each_file_on_the_way_imports_the_next(heading: str) -> None:
    chain = re.findall(r"^\d\. `([\w/]+\.py)`", section(read("retrieval/README.md"), heading), re.MULTILINE)
    assert len(chain) == 5
    for here, following in pairwise(chain):
        assert module_of(following) in imports_of(ROOT / here), f"{here} does not import {following}"


def test_the_readme_follows_the_same_search() -> None:
    chain = re.findall(r"^\d\. `([\w/]+\.py)`", section(read("retrieval/README.md"), "Follow a search"), re.MULTILINE)
    stated = read("README.md").partition("Follow a search in five files")[2].partition("\n\n")[0]
    assert re.findall(r"`([\w/]+\.py)`", stated) == chain
