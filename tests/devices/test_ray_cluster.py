"""Nothing imports Ray unless a cluster is asked for."""

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from retrieval.devices import ray_cluster
from retrieval.errors import DependencyError
from tests.project.test_layers import SOURCES, imports_of
from tests.support.paths import ROOT, tree_of


def names_ray(path: Path) -> bool:
    """Parse a file only where it has the word, since parsing takes a thousand times as long as looking for it."""
    has_word = re.search(r"\bray\b", path.read_text("utf-8"))
    return bool(has_word) and any(name.split(".")[0] == "ray" for name in imports_of(path))


def test_ray_is_imported_in_functions_of_one_module() -> None:
    found = [path.relative_to(ROOT).as_posix() for path in SOURCES if names_ray(path)]
    assert found == ["retrieval/devices/ray_cluster.py"]
    top = [node for node in tree_of(ROOT / found[0]).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [alias.name for node in top for alias in node.names if alias.name.split(".")[0] == "ray"]


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"diffsim-retrieval\[ray\]"):
        ray_cluster.connect(None)


def test_actors_get_the_variables_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "somewhere")
    monkeypatch.setenv("UNRELATED_SECRET", "of the driver")
    passed = ray_cluster.passed_environment()
    assert passed["AWS_REGION"] == "somewhere"
    assert "UNRELATED_SECRET" not in passed


@pytest.mark.parametrize("connected", [True, False])
def test_no_actor_is_ended_through_a_new_connection(monkeypatch: pytest.MonkeyPatch, connected: bool) -> None:
    """Ray's own call would connect to the cluster again, after the driver has left it."""
    ended: list[object] = []
    ray = SimpleNamespace(is_initialized=lambda: connected, kill=ended.append)
    monkeypatch.setitem(sys.modules, "ray", ray)
    ray_cluster.kill_actor("actor")
    assert ended == ["actor"] * connected
