from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.reader import IndexReader
from index_store.vectors.flat import FlatIndex
from retrieval.search.candidates import CandidateGenerator, CandidateQuestion, fuse_rankings
from retrieval.search.coarse_vectors import CosinesAsk, LocalVectors
from retrieval.settings import SearchSettings
from tests.support.synthetic_index import ENCODER, add_segments


def test_fusion_by_hand() -> None:
    first, second = np.array([4, 9, 2]), np.array([9, 7])
    # 9: 1/62 + 1/61; 4: 1/61; 7: 1/62; 2: 1/63
    assert fuse_rankings([first, second], 10).tolist() == [9, 4, 7, 2]
    assert fuse_rankings([first, second], 2).tolist() == [9, 4]


def test_one_ranking_stays_as_it_is_and_ties_go_to_the_lower_row() -> None:
    assert fuse_rankings([np.array([5, 1, 3])], 3).tolist() == [5, 1, 3]
    assert fuse_rankings([np.array([5]), np.array([1])], 2).tolist() == [1, 5]
    assert fuse_rankings([], 3).tolist() == []


@given(st.lists(st.permutations(list(range(8))), min_size=1, max_size=4), st.integers(1, 12))
def test_fusion_does_not_depend_on_the_order_of_encoders(rankings: list[list[int]], count: int) -> None:
    arrays = [np.array(ranking) for ranking in rankings]
    fused = fuse_rankings(arrays, count).tolist()
    assert fused == fuse_rankings(arrays[::-1], count).tolist()
    assert len(fused) == len(set(fused)) == min(count, 8)


def test_the_coarse_index_is_exact() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FlatIndex(vectors)
    rows, cosines = index.search(vectors[17], 5)
    expected = vectors @ vectors[17]
    assert rows.tolist() == np.argsort(-expected, kind="stable")[:5].tolist()
    np.testing.assert_allclose(cosines, expected[rows], atol=1e-6)
    np.testing.assert_allclose(index.similarities(vectors[17], rows), expected[rows], atol=1e-6)
    assert len(index.search(vectors[0], 1000)[0]) == 300


class CountedVectors(LocalVectors):
    """Counts the rows whose cosines are asked for."""

    rows = 0

    def cosines(self, asks: Sequence[CosinesAsk]) -> list[NDArray[np.float32]]:
        self.rows += sum(len(ask.rows) for ask in asks)
        return super().cosines(asks)


@pytest.mark.parametrize(("vectors", "exhaustive", "asked"), [(1, False, 0), (2, False, 20), (1, True, 90)])
def test_cosines_that_a_ranking_holds_are_not_computed_again(
    tmp_path: Path, vectors: int, exhaustive: bool, asked: int
) -> None:
    add_segments(tmp_path / "e.diffsim", [40, 50], 12)
    reader = IndexReader(tmp_path / "e.diffsim")
    coarse = CountedVectors(reader, torch.device("cpu"))
    queries = reader.vectors(ENCODER)[[3, 70][:vectors]]
    question = CandidateQuestion({ENCODER: queries}, SearchSettings(candidates=20, k=5, exhaustive=exhaustive))
    (found,) = CandidateGenerator(reader, {}, coarse).generate([question], "none")
    assert coarse.rows == asked
    expected = LocalVectors(reader, torch.device("cpu")).cosines([CosinesAsk(ENCODER, queries, found.rows)])[0]
    np.testing.assert_array_equal(found.similarities, expected)
