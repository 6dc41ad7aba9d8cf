"""The documents tell the truth: commands, options, paths, figures and tables are those of the code."""

import ast
import importlib
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.paths import ROOT

SENTENCES_OF = {
    "README.md": 22,
    "USAGE.md": 25,
    "BENCHMARKS.md": 25,
    "DESIGN.md": 25,
    "LOG.md": 25,
    "CHANGELOG.md": 25,
    "index_store/FORMAT.md": 25,
    "retrieval/README.md": 25,
    "retrieval/models/README.md": 25,
    "retrieval/models/mini/MODEL_CARD.md": 25,
    "retrieval/evaluation/README.md": 25,
}
DOCUMENTS = sorted(SENTENCES_OF)
COMMANDS = {"diffsim-index": "index_command", "diffsim-search": "search_command", "diffsim-eval": "eval_command"}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t).*$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-z0])(?![\w-])")
FIGURE = re.compile(r"(?<![\w.,/-])(\d+(?:[.,]\d+)*)(?![\w-])( (?:images/s|ms|s|GB|MB|kB|MP|%|x)(?!\w))?")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """The part of a document below a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section '{heading}'"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of all tables, without the line below a heading."""
    lines = [line for line in FENCE.sub("", text).splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if not re.fullmatch(r"[|:\- ]+", line)
    ]


def plain(cell: str) -> str:
    return cell.strip("`* ")


def code_lines(text: str) -> list[str]:
    """Lines of code blocks, without a prompt."""
    blocks = [*FENCE.findall(text), *INDENTED.findall(FENCE.sub("", text))]
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", INDENTED.sub("", FENCE.sub("", text)))


# Sentences.


def sentences(text: str) -> list[str]:
    """Clauses of the prose: no code blocks, tables, headings and pictures; an item of a list stands alone."""
    blocks: list[list[str]] = [[]]
    for line in INDENTED.sub("", FENCE.sub("", text)).splitlines():
        item = re.match(r"\s*(?:[-*]|\d+\.) +", line)
        if item or not line.strip() or line.startswith(("|", "#", "![")):
            blocks.append([])
        if not line.startswith(("|", "#", "![")):
            blocks[-1].append(line[item.end() :] if item else line)
    found = []
    for block in blocks:
        words = re.sub(r"`[^`]+`", "code", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block)))
        found += [part for part in re.split(r"[.!?:;](?=\s|$)", words) if re.search(r"\w", part)]
    return found


def percentile_90(text: str) -> int:
    lengths = sorted(len(re.findall(r"\w[\w'’.,-]*", sentence)) for sentence in sentences(text))
    return lengths[math.ceil(0.9 * len(lengths)) - 1]


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


# Commands, options, targets and modules.


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
    from cli.process import INTERRUPTED
    from retrieval import errors

    kinds = [kind for kind in map(errors.__dict__.get, errors.__all__) if isinstance(kind, type)]
    known = {0, REJECTED, INTERRUPTED, *(kind.exit_code for kind in kinds)}
    assert {int(row[0]) for row in rows(section(read("USAGE.md"), "Exit codes"))[1:]} == known


def test_usage_lists_every_codec() -> None:
    from index_store.codecs import CODECS

    for name, heading in {"USAGE.md": "Codecs", "index_store/FORMAT.md": "Tensors"}.items():
        named = {span for row in rows(section(read(name), heading)) for span in re.findall(r"`([^`]+)`", row[0])}
        assert set(CODECS) <= named, name


# Paths.


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
    told = [set(re.findall(r"`(\w+)[./]", cell)) for cell in cells]
    assert told == list(LAYERS)
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
    told = read("README.md").partition("Follow a search in five files")[2].partition("\n\n")[0]
    assert re.findall(r"`([\w/]+\.py)`", told) == chain


# Figures and tables.


def figures_in(cells: list[list[str]]) -> set[str]:
    """Every number, with its unit where one follows."""
    return {"".join(found) for row in cells for cell in row for found in FIGURE.findall(re.sub(r"`[^`]*`", "", cell))}


def test_the_readmes_figures_are_measured() -> None:
    """Every figure in a table of the README stands in a table of BENCHMARKS.md as well."""
    told = figures_in(rows(read("README.md")))
    assert {"59 images/s", "40 ms", "22 s", "4.3 GB"} <= told  # the figures are found at all
    measured = figures_in(rows(read("BENCHMARKS.md")))
    assert told - measured - {figure.split()[0] for figure in measured} == set()


def test_figures_say_how_they_were_made() -> None:
    text = read("BENCHMARKS.md")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert len(headings) >= 10
    for heading in headings:
        part = section(text, heading)
        assert re.search(r"^Command: `(make|python|diffsim)", part, re.MULTILINE), heading
        assert re.search(r"^Date: \d{4}-\d{2}-\d{2}\. Machine: (A|B|any)\b", part, re.MULTILINE), heading


def test_codecs_take_the_bytes_that_were_measured() -> None:
    told = figures_in([row[2:] for row in rows(section(read("USAGE.md"), "Codecs"))[1:]])
    assert len(told) == 6
    assert told - figures_in([row[1:2] for row in rows(section(read("BENCHMARKS.md"), "Codecs"))]) == set()


def test_the_table_of_models_is_the_registry() -> None:
    from retrieval.models.modes import LAST_STEP
    from retrieval.models.registry import EMBEDDERS, EXTRACTORS

    text = read("retrieval/models/README.md")
    for heading, table in (
        ("Attention models (`--model`)", EXTRACTORS),
        ("Encoders for candidates (`--encoders`)", EMBEDDERS),
    ):
        told = {plain(row[0]): row[2:] for row in rows(section(text, heading))[1:]}
        assert set(told) == set(table)
        for name, entry in table.items():
            size = f"{entry.download_mb} MB" if entry.download_mb else "none"
            repo = f"`{entry.repo}`" if entry.repo else "in the package"
            assert told[name] == [entry.licence, size, repo], name
    header, *lines = rows(section(text, "Modes"))
    for line in lines:
        for model in re.findall(r"`([^`]+)`", line[0]):
            for mode, cell in zip(map(plain, header[1:]), line[1:], strict=True):
                assert bool(cell) == (mode in EXTRACTORS[model].modes), f"{model} {mode}"
                if step := re.search(r"step (\d+)", cell):
                    assert EXTRACTORS[model].modes[mode].target.timestep == LAST_STEP - int(step[1]), f"{model} {mode}"


def expand(cells: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """One entry a name, where a row's first cell names several."""
    return {name: row for names, row in cells.items() for name in re.findall(r"`([^`]+)`", names)}


def test_the_tables_of_benchmarks_and_metrics_are_the_code() -> None:
    from retrieval.evaluation.benchmarks.table import BENCHES
    from retrieval.metrics.registry import AAS, METRICS

    text = read("retrieval/evaluation/README.md")
    benches = {plain(row[0]): row for row in rows(section(text, "Benchmarks"))[1:]}
    assert set(benches) == {*BENCHES, "tiktok", "pairs", "all"}
    for name, bench in BENCHES.items():
        assert benches[name][2] == (str(bench.published) if bench.published else ""), name
    metrics = expand({row[0]: row for row in rows(section(text, "Metrics"))[1:]})
    assert set(metrics) == set(METRICS)
    for name, metric in METRICS.items():
        size = f"{metric.download_mb} MB" if metric.download_mb else "none"
        assert size in metrics[name][2], name
        assert (metrics[name][3] == "yes") == (metric.loader == AAS), name
        assert f"`{metric.needs}`" in metrics[name][1] if metric.needs else True, name


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
