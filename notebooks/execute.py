"""Run the notebooks and store their outputs (`make notebooks`): from NAME.py, the source, to NAME.ipynb."""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(source: Path) -> None:
    """Run one notebook from its own folder and write it, with outputs, next to its source."""
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same in every run
        cell["metadata"] = {}  # times of day
    nbformat.write(notebook, source.with_suffix(".ipynb"))
    print(f"{source.stem}: {source.with_suffix('.ipynb').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    chosen = sys.argv[1:] or sorted(path.stem for path in HERE.glob("[0-9]*.py"))
    for name in chosen:
        execute(HERE / f"{name}.py")
