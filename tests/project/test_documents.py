"""The documents tell the truth: sentences are short; commands, options, targets and variables are those of the code."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import typer

from tests.support.documents import (
    DOCUMENTS,
    SENTENCES_OF,
    code_lines,
    code_spans,
    percentile_90,
    plain,
    read,
    rows,
    section,
    sentences,
)
from tests.support.paths import ROOT

COMMANDS = {
    "diffsim-index": "index_command",
    "diffsim-search": "search_command",
    "diffsim-eval": "eval_command",
    "diffsim-serve": "serve_command",
}
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-z0])(?![\w-])")


def test_sentences_are_counted_as_people_would() -> None:
    prose = "# A heading\n\nOne two `three four` five. Six seven: eight!\n\n    code code\n\n| a | table |\n"
    text = prose + "- an item\n- [a link](b.md)\n"
    assert [len(re.findall(r"\w+", sentence)) for sentence in sentences(text)] == [4, 2, 1, 2, 2]
    assert percentile_90("word " * 30 + ".") == 30


@pytest.mark.parametrize(("name", "most"), SENTENCES_OF.items())
def test_sentences_are_short(name: str, most: int) -> None:
    assert percentile_90(read(name)) <= most


def test_the_documents_are_small() -> None:
    assert len(read("README.md").splitlines()) <= 150
    assert (ROOT / "README.md").stat().st_size <= 7_000
    assert (ROOT / "DESIGN.md").stat().st_size <= 8_000


@cache
def parameters(*words: str) -> tuple[frozenset[str], frozenset[str]]:
    """The options of a command, and the names of the commands below it."""
    command: Any = typer.main.get_command(importlib.import_module(f"cli.{COMMANDS[words[0]]}").app)
    for word in words[1:]:
        assert word in getattr(command, "commands", {}), f"there is no command {' '.join(words)}"
        command = command.commands[word]
    options = {"--help", *(option for each in command.params for option in (*each.opts, *each.secondary_opts))}
    return frozenset(options), frozenset(getattr(command, "commands", {}))


def every_command() -> Iterator[tuple[str, ...]]:
    for name in COMMANDS:
        below = parameters(name)[1]
        yield from ((name, word) for word in below) if below else ((name,),)


def command_of(line: str) -> tuple[str, ...]:
    name, *rest = line.split()
    below = parameters(name)[1]
    return (name, rest[0]) if below and rest and not rest[0].startswith("-") else (name,)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_their_options_exist(name: str) -> None:
    text = read(name)
    lines = [
        line for line in (*code_lines(text), *code_spans(text)) if line.split()[:1] and line.split()[0] in COMMANDS
    ]
    for line in lines:
        known = parameters(*command_of(line))[0]
        assert [option for option in OPTION.findall(line) if option not in known] == [], line


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_named_in_the_text_exist(name: str) -> None:
    known = frozenset().union(*(parameters(*command)[0] for command in every_command()))
    spans = [span for span in code_spans(read(name)) if span.startswith("-")]
    assert [option for span in spans for option in OPTION.findall(span) if option not in known] == []


def test_options_stand_with_a_command_that_has_them() -> None:
    """A table of options in a command's section of USAGE names options of that command."""
    text = read("USAGE.md")
    for command in every_command():
        heading = " ".join(command)
        if f"\n## {heading}\n" in text:
            cells = [row[0] for row in rows(section(text, heading))]
            unknown = [o for cell in cells for o in OPTION.findall(cell) if o not in parameters(*command)[0]]
            assert unknown == [], heading


def test_usage_describes_every_command() -> None:
    text = read("USAGE.md")
    headings = set(re.findall(r"^## (.+)$", text, re.MULTILINE))
    described = headings | {plain(row[0]) for row in rows(text)}
    assert [" ".join(command) for command in every_command() if " ".join(command) not in described] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    text = read(name)
    named = {line.split()[1] for line in (*code_lines(text), *code_spans(text)) if line.startswith("make ")}
    assert named - targets == set()


def test_usage_has_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert targets - {span.split()[1] for span in code_spans(read("USAGE.md")) if span.startswith("make ")} == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_that_are_run_exist(name: str) -> None:
    for module in re.findall(r"python -m (tests[\w.]*|retrieval[\w.]*)", read(name)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_usage_names_the_variables_that_are_read_or_set() -> None:
    table = section(read("USAGE.md"), "Environment variables")
    named = {name for row in rows(table) for name in re.findall(r"\b[A-Z][A-Z_]+\b", row[0])}
    source = "".join(
        path.read_text("utf-8") for part in ("cli", "retrieval", "index_store") for path in (ROOT / part).rglob("*.py")
    )
    used = set(re.findall(r"[\"']((?:DIFFSIM|HF|OMP|TRANSFORMERS|DIFFUSERS|XDG)_[A-Z_]+)[\"']", source))
    assert used - named == set()
    elsewhere = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")) + read("Makefile")
    assert [name for name in named if not name.startswith("AWS") and name not in source + elsewhere] == []


def test_usage_lists_every_exit_code() -> None:
    from cli.index_command import REJECTED
    from cli.terminal.process import INTERRUPTED
    from retrieval import errors

    kinds = [kind for kind in map(errors.__dict__.get, errors.__all__) if isinstance(kind, type)]
    known = {0, REJECTED, INTERRUPTED, *(kind.exit_code for kind in kinds)}
    assert {int(row[0]) for row in rows(section(read("USAGE.md"), "Exit codes"))[1:]} == known


def test_usage_lists_every_codec() -> None:
    from index_store.codecs import CODECS

    for name, heading in {"USAGE.md": "Codecs", "index_store/FORMAT.md": "Tensors"}.items():
        named = {span for row in rows(section(read(name), heading)) for span in re.findall(r"`([^`]+)`", row[0])}
        assert set(CODECS) <= named, name


def test_the_pythons_of_the_readme_are_those_of_the_package() -> None:
    assert 'requires-python = ">=3.11,<3.14"' in read("pyproject.toml")
    assert "Python 3.11 to 3.13" in read("README.md")


def test_the_readmes_python_is_the_library() -> None:
    """Names that the example imports and calls exist."""
    block = re.search(r"```python\n(.*?)```", read("README.md"), re.DOTALL)
    assert block
    tree = ast.parse(block[1])
    imported = {
        a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "retrieval" for a in n.names
    }
    import retrieval

    assert imported == {"Engine", "build_index"}
    assert imported <= set(retrieval.__all__)
    called = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") in ("engine", "Engine")
    }
    assert called == {"open", "search", "score"}
    assert all(hasattr(retrieval.Engine, name) for name in called)


def test_nothing_names_a_machine() -> None:
    for name in DOCUMENTS:
        assert re.findall(r"(?<![\w.~])/(?:work|root|home|tmp)\b", read(name)) == [], name
