"""The shape of the project: which way imports point, and what importing costs."""

import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PACKAGES = ("cli", "retrieval", "index_store")
HEAVY = ("torch", "diffusers", "transformers", "faiss", "zarr", "PIL", "numpy", "pyarrow")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    "statement",
    [
        "import retrieval, index_store, cli",
        "from cli.eval_command import app",
        "from cli.index_command import app",
        "from cli.search_command import app",
        "from cli.serve_command import app",
        "from retrieval import SearchSettings, DiffSimError",
        "from retrieval.indexing.workers.processes import ProcessWorker",
    ],
)
def test_importing_the_commands_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_a_client_imports_no_library_of_models() -> None:
    models = sorted(set(HEAVY) - {"PIL", "numpy"})
    code = f"import sys; from retrieval import Client; print(sorted(set(sys.modules) & set({models!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["eval_command", "index_command", "search_command", "serve_command"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom cli.{command} import app\n"
        f"try: app()\nexcept SystemExit: pass\nprint(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "Usage" in result.stdout
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_every_module_can_be_imported_and_heavy_libraries_only_when_asked() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.name != "__main__.py"
    ]
    first = "cli.index_command, cli.search_command, retrieval.search.engine, retrieval.indexing.workers.opening"
    rare = ("ray", "transformers", "diffusers", "sklearn", "duckdb", "fastapi", "pandas")
    code = (
        f"import importlib, sys, {first}; print([name for name in {rare} if name in sys.modules])\n"
        f"for name in {names!r}: importlib.import_module(name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


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
