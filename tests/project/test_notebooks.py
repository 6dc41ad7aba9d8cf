"""The notebooks: sources and results are pairs in step, ran without errors, and end with a dated conclusion."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

NOTEBOOKS = ROOT / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("[0-9]*.py"))
MOST_BYTES = 1_500_000


def cells_of(source: Path) -> list[tuple[str, str]]:
    """Kind and text of every cell of a .py file in the percent format."""
    body = re.sub(r"\A# ---\n.*?\n# ---\n", "", source.read_text("utf-8"), flags=re.DOTALL)
    found = []
    for mark, text in re.findall(r"^# %%([^\n]*)\n(.*?)(?=^# %%|\Z)", body, re.DOTALL | re.MULTILINE):
        if "[markdown]" in mark:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines())
        found.append(("markdown" if "[markdown]" in mark else "code", text.strip()))
    return found


def read(source: Path) -> Any:
    return json.loads(source.with_suffix(".ipynb").read_text("utf-8"))


def test_there_are_five_notebooks() -> None:
    assert [source.name[:2] for source in SOURCES] == ["01", "02", "03", "04", "05"]
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {source.stem for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_pair_is_in_step(source: Path) -> None:
    stored = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in read(source)["cells"]]
    assert stored == cells_of(source), "run: make notebooks"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_ran_and_says_what_it_showed(source: Path) -> None:
    cells = read(source)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("data" in output for output in outputs)
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    assert cells[-1]["cell_type"] == "markdown"
    assert re.match(r"\*\*Conclusion, 20\d\d-\d\d-\d\d\.\*\* \w", "".join(cells[-1]["source"]))
    assert source.with_suffix(".ipynb").stat().st_size < MOST_BYTES
    notebook = source.with_suffix(".ipynb").read_text("utf-8")
    assert "/home/" not in notebook
    assert "/tmp/" not in notebook
