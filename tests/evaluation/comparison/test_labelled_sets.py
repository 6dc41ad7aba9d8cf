"""The sets that a comparison reads, and how rankings are judged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.comparison.labelled_sets import LabelledSet, load_sets
from retrieval.evaluation.triplets import Triplet
from tests.evaluation.conftest import TREES
from tests.support import bench_trees as trees


@pytest.mark.parametrize("name", TREES)
def test_every_benchmark_of_groups_or_triplets_is_read(name: str, grown: Callable[[str], Path]) -> None:
    (found,) = load_sets(name, grown(name), BenchOptions())
    assert set(found.queries) <= set(found.images) or found.triplets
    assert found.measure == ("mAP" if name in ("sref", "instantstyle", "groups") else "accuracy")
    if found.triplets:
        assert len(found.triplets) == TREES[name][1]
    else:
        assert len(found.queries) == 24 * 4, "an image that is alone in its group is no query"


def test_at_most_so_many_queries_are_drawn_with_the_seed(grown: Callable[[str], Path]) -> None:
    def queries(seed: int) -> list[str]:
        (found,) = load_sets("groups", grown("groups"), BenchOptions(seed=seed), 10)
        assert len(found.images) == 24 * 4 + 1
        return [str(path) for path in found.queries]

    assert len(queries(1)) == 10
    assert queries(1) == queries(1) != queries(2)
    (votes,) = load_sets("votes", grown("votes"), BenchOptions(), 3)
    assert len(votes.triplets) == 3


def test_every_folder_is_a_set_of_its_own(tmp_path: Path) -> None:
    trees.votes(tmp_path / "people")
    trees.styles(tmp_path / "styles", 3)
    trees.levels(tmp_path / "levels")
    found = load_sets("all", tmp_path, BenchOptions())
    assert [(each.name, each.measure) for each in found] == [
        ("levels", "accuracy"), ("people", "accuracy"), ("styles", "mAP"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["pairs", "tiktok", "nonsense"])
def test_benchmarks_without_rankings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"'{name}' can't be compared; known: sref"):
        load_sets(name, tmp_path, BenchOptions())


def test_groups_without_a_second_image_are_refused(tmp_path: Path) -> None:
    for group in "ab":
        trees.paint(tmp_path / group / "0.png", 1)
    with pytest.raises(UsageError, match="no folder of two or more"):
        load_sets("groups", tmp_path, BenchOptions())


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-9, 9)), min_size=4, max_size=20), st.randoms())
def test_groups_are_judged_as_a_slow_reference_does(rows: list[tuple[int, int]], chance: object) -> None:
    """Average precision with the query left out: the precision at each relevant image, whose score has no equal."""
    rows = [(group, number * 20 + score) for number, (group, score) in enumerate(rows)]  # no two scores are equal
    paths = [Path(f"{number}.png") for number in range(len(rows))]
    groups = {path: str(group) for path, (group, _) in zip(paths, rows, strict=True)}
    query = max(paths, key=lambda path: list(groups.values()).count(groups[path]))
    found = list(LabelledSet("x", paths, paths, groups).judge(query, np.array([float(s) for _, s in rows])))
    others = sorted(
        ((score, path) for path, (_, score) in zip(paths, rows, strict=True) if path != query), reverse=True
    )
    right = [groups[path] == groups[query] for _, path in others]
    precisions = [sum(right[: rank + 1]) / (rank + 1) for rank in range(len(right)) if right[rank]]
    assert found == [(groups[query], pytest.approx(sum(precisions) / len(precisions)))]


def test_triplets_are_judged_one_by_one_and_a_tie_counts_half() -> None:
    a, b, c, query, other = (Path(name) for name in ("a", "b", "c", "query", "other"))
    triplets = [Triplet(query, a, b), Triplet(other, b, a), Triplet(query, b, c), Triplet(query, c, b)]
    given_set = LabelledSet("x", [a, b, c], [other, query], triplets=triplets)
    assert list(given_set.judge(query, np.array([3.0, 2.0, 2.0]))) == [("0", 1.0), ("2", 0.5), ("3", 0.5)]
    assert list(given_set.judge(other, np.array([3.0, 2.0, 2.0]))) == [("1", 0.0)]


def test_a_changed_image_a_setting_and_a_label_have_another_identity(tmp_path: Path) -> None:
    trees.styles(tmp_path, 3)

    def identity(model: str = "cells", queries: int | None = None) -> str:
        (found,) = load_sets("groups", tmp_path, BenchOptions(), queries)
        return found.identity({"model": model})

    first = identity()
    assert first == identity()
    assert len({first, identity("other"), identity(queries=2)}) == 3
    trees.paint(tmp_path / "000" / "9.png", 0)
    assert identity() != first
