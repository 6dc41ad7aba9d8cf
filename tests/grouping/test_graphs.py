"""Pairs of neighbours equal those of an exhaustive search; components and stars are what their names say."""

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_store.reader import IndexReader
from index_store.vectors import training
from retrieval.grouping.components import components, same_digests, stars
from retrieval.grouping.neighbours import Pairs, merged, near_pairs, typical_cosine
from retrieval.progress import ignore_progress
from tests.support.synthetic_index import ENCODER, add_segments

EDGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda e: e[0] < e[1]), unique=True)


@settings(max_examples=60, deadline=None)
@given(EDGES)
def test_components_are_those_of_networkx(edges: list[tuple[int, int]]) -> None:
    expected = sorted(sorted(part) for part in nx.connected_components(nx.Graph(edges)))
    assert components([one for one, _ in edges], [other for _, other in edges]) == expected


@settings(max_examples=60, deadline=None)
@given(EDGES)
def test_stars_are_joined_to_their_middle_and_share_nothing(edges: list[tuple[int, int]]) -> None:
    scores = {edge: 1.0 / (1 + sum(edge)) for edge in edges}
    found = stars(scores)
    nodes = [node for group in found for node in group]
    assert len(nodes) == len(set(nodes))
    assert all(tuple(sorted((group[0], other))) in scores for group in found for other in group[1:])
    # An edge between two nodes that no star took would have made a star.
    assert not [edge for edge in edges if not set(edge) & set(nodes)]
    assert stars(dict(reversed(scores.items()))) == found


def test_a_star_begins_with_the_node_of_most_edges() -> None:
    assert stars({(0, 1): 0.9, (1, 2): 0.8, (1, 3): 0.95, (3, 4): 0.99}) == [[1, 3, 0, 2]]


def test_rows_with_one_digest_are_joined_to_the_first() -> None:
    first, second = same_digests(["a", "b", "a", "c", "a"])
    assert (first.tolist(), second.tolist()) == ([0, 0], [2, 4])


def test_pairs_are_merged_with_the_best_of_each() -> None:
    def pair(one: int, other: int, closeness: float, rank: int) -> Pairs:
        return Pairs(*(np.array([n]) for n in (one, other)), np.array([closeness], np.float32), np.array([rank]))

    found = merged([pair(1, 4, 0.5, 3), pair(0, 2, 0.9, 0), pair(1, 4, 0.7, 5)], 5)
    assert (found.first.tolist(), found.second.tolist()) == ([0, 1], [2, 4])
    assert found.closeness.tolist() == pytest.approx([0.9, 0.7])
    assert found.rank.tolist() == [0, 3]
    assert len(merged([], 0)) == 0


@pytest.mark.parametrize("with_ivf", [False, True])
def test_every_image_has_its_nearest(tmp_path: Path, with_ivf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = add_segments(tmp_path, [300, 300], 16)
    if with_ivf:
        monkeypatch.setattr(training, "IVF_FROM_ROWS", 100)
        training.train_where_due(IndexReader(tmp_path).vector_reader)
        add_segments(tmp_path, [40], 16, seed=1, generation=generation)  # rows that the IVF index does not hold
    reader = IndexReader(tmp_path)
    vectors = reader.vectors(ENCODER)
    found = near_pairs(reader, [ENCODER], 4, ignore_progress)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :4]
    expected = {(min(row, other), max(row, other)) for row, near in enumerate(nearest.tolist()) for other in near}
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(pairs & expected) >= (0.97 if with_ivf else 1) * len(expected)
    typical = typical_cosine(vectors.__getitem__, np.arange(len(vectors)))
    close = (cosines[found.first, found.second] - typical) / (1 - typical)
    assert found.closeness == pytest.approx(close, abs=3e-3)
    assert (found.first < found.second).all()
