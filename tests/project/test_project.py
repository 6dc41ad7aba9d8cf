"""The shape of the project: which way imports point, what importing costs, and that the README tells the truth."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("cli", "retrieval", "index_store")
HEAVY = ("torch", "diffusers", "transformers", "faiss", "zarr", "PIL", "numpy", "pyarrow")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 75, node.name


@pytest.mark.parametrize(
    "statement",
    [
        "import retrieval, index_store, cli",
        "from cli.eval_command import app",
        "from cli.index_command import app",
        "from cli.search_command import app",
        "from retrieval import SearchSettings, DiffSimError",
    ],
)
def test_importing_the_commands_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["eval_command", "index_command", "search_command"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom cli.{command} import app\n"
        f"try: app()\nexcept SystemExit: pass\nprint(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "Usage" in result.stdout
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_the_public_names_are_importable_and_sorted() -> None:
    import retrieval

    assert retrieval.__all__ == sorted(retrieval.__all__)
    for name in retrieval.__all__:
        assert getattr(retrieval, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        _ = retrieval.Engin


def test_choices_name_the_fields_they_stand_for() -> None:
    from dataclasses import fields

    from retrieval.settings import ModelChoices, ModelSettings, SearchChoices, SearchSettings

    for choices, settings in ((ModelChoices, ModelSettings), (SearchChoices, SearchSettings)):
        assert set(choices.__annotations__) == {field.name for field in fields(settings)}  # type: ignore[arg-type]


def test_the_readme_tree_is_the_disk() -> None:
    """Every path in the README's file tree exists, and every module is in it."""
    block = re.search(r"```text\n(diffsim-retrieval/.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block
    listed, folders = set(), [ROOT]
    for line in block[1].splitlines()[1:]:
        entry = re.match(r"( *)(\S+)", line)
        if not entry:
            continue
        depth, names = len(entry[1]) // 2, entry[2]
        for name in names.split(","):
            path = folders[depth - 1] / name.rstrip("/")
            assert path.exists(), f"README names {path.relative_to(ROOT)}, which is not there"
            listed.add(path)
            folders[depth:] = [path]
    missing = [
        path for path in MODULES if path not in listed and path.parent not in {p for p in listed if leaf(p, listed)}
    ]
    assert [path.relative_to(ROOT).as_posix() for path in missing if path.name != "__init__.py"] == []


def leaf(folder: Path, listed: set[Path]) -> bool:
    """A folder that the tree names without what is in it."""
    return folder.is_dir() and not any(path.parent == folder for path in listed)


def help_of(*words: str) -> str:
    """The help of an installed command."""
    module = f"{words[0].removeprefix('diffsim-')}_command"
    code = f"import sys; sys.argv[0] = {words[0]!r}; from cli.{module} import app; app()"
    result = subprocess.run(
        [sys.executable, "-c", code, *words[1:], "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert result.returncode == 0, f"README names an unknown command: {' '.join(words)}"
    return result.stdout


def test_the_readme_uses_commands_and_options_that_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = re.findall(r"^\s*(?:\$ )?(diffsim-(?:index|search|eval)\b.*)$", readme, re.MULTILINE)
    assert lines
    helps: dict[tuple[str, ...], str] = {}
    for line in lines:
        command, *rest = line.split()
        words = (command,) if command == "diffsim-search" else (command, rest[0])
        if rest[:1] == ["bench"]:
            words = (*words, rest[1])
        helps.setdefault(words, help_of(*words))
        for option in re.findall(r"(?<=\s)(--[a-z-]+|-[a-z0-9])(?=[\s=]|$)", line):
            assert option in helps[words], f"{' '.join(words)} has no option {option}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", readme)) <= targets
    every_command = re.findall(r"^\S+ +(\w+) ", help_of("diffsim-index").partition("Commands")[2], re.MULTILINE)
    for command in every_command:
        assert f"diffsim-index {command}" in readme, f"README does not name diffsim-index {command}"


def test_version_and_changelog_agree() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version
    assert newest
    assert newest[1] == version[1]
