"""Features are computed once and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.advice import sentence_of
from retrieval.errors import NoSpaceError
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.runner import Run, run_bench
from retrieval.evaluation.triplets import read_groups
from retrieval.images.decoding import DecodeRules
from tests.support import bench_trees as trees


def test_features_are_kept_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.styles(tmp_path / "tree", 3)
    groups = read_groups(tmp_path / "tree")
    paths = [path for members in groups.values() for path in members]
    first = FeatureStore(trees.Oracle(), DecodeRules(), tmp_path / "cache")
    first.encode(paths[:7], "gallery")
    encoded: list[int] = []

    class Counting(trees.Oracle):
        def encode(self, images: Any, role: Any) -> Any:
            encoded.append(len(images))
            return super().encode(images, role)

        def fingerprint(self) -> dict[str, Any]:
            return {"name": "Oracle"}

    second = FeatureStore(Counting(), DecodeRules(), tmp_path / "cache")
    second.encode(paths, "query")
    assert sum(encoded) == len(paths) - 7
    second.encode(paths, "gallery")
    assert sum(encoded) == len(paths) - 7
    assert second.get(paths[:2], "query")["colour"].tolist() == first.get(paths[:2], "query")["colour"].tolist()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    FeatureStore(trees.Guess(), DecodeRules(), tmp_path / "cache").encode(paths[:1], "query")
    assert len(list((tmp_path / "cache").iterdir())) == 2  # another metric, other features


def test_too_little_memory_is_an_error_that_names_the_cache(
    grown: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = grown("groups")
    monkeypatch.setattr("retrieval.evaluation.feature_store.available_memory", lambda: 1)
    with pytest.raises(NoSpaceError, match=r"the features need about .* GB of memory") as caught:
        list(run_bench("groups", folder, Run({"oracle": trees.Oracle()})))
    assert "keep them on disk instead, with --cache" in sentence_of(caught.value)
    kept = Run({"oracle": trees.Oracle()}, cache=tmp_path)
    assert next(run_bench("groups", folder, kept)).value == 1.0
