"""The shape of the project: which way imports point, and what importing costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "retrieval", "index_store")
HEAVY = ("torch", "diffusers", "transformers", "faiss", "zarr", "PIL", "numpy", "pyarrow")
# The only modules of retrieval that may touch the disk format; errors takes its root from there.
TOUCH_STORE = {
    "backlog",
    "build",
    "candidates",
    "commits",
    "device_coarse",
    "dry_run",
    "engine",
    "errors",
    "estimate",
    "fill",
    "lookup",
    "maintenance",
    "models",
    "neighbours",
    "on_demand",
    "overview",
    "plan",
    "stored",
    "work",
}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    package, *inside = path.relative_to(ROOT).with_suffix("").parts
    ours = {name for name in imports_of(path) if name.split(".")[0] in PACKAGES}
    if package == "index_store":
        assert {name for name in ours if not name.startswith("index_store")} == set()
        assert {
            name for name in imports_of(path) if name.split(".")[0] in ("torch", "diffusers", "transformers")
        } == set()
    if package == "retrieval":
        assert {name for name in ours if name.startswith("cli")} == set()
        if inside[0] not in TOUCH_STORE:
            assert {name for name in ours if name.startswith("index_store")} == set()


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


def test_version_and_changelog_agree() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version
    assert newest
    assert newest[1] == version[1]
