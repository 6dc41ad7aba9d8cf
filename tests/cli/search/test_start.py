"""What a search imports before it answers: each library below takes a twentieth of a second or more."""

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

NOT_NEEDED = ("diffusers", "pandas", "pyarrow.compute", "pydantic", "rich", "scipy", "transformers", "zarr")


def test_a_search_imports_no_library_that_it_can_do_without(index: Path, gallery: Path) -> None:
    query = min(gallery.rglob("*.png"))
    words = ["diffsim-search", str(query), "--index", str(index), "-k", "3", "--mode", "style", "-v"]
    code = (
        f"import gc, sys; sys.argv = {words!r}\nfrom cli.search_command import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code and gc.isenabled()\n"
        f"print(sorted(set(sys.modules) & set({NOT_NEEDED!r})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert query.name in result.stdout
