"""From scores to results: the order is decided first, and people see cosines of 1 at most."""

from pathlib import Path

import numpy as np
import pytest

from index_store.reader import IndexReader
from retrieval.search.candidates import Candidates
from retrieval.search.ranking import closest_first, rank_candidates
from retrieval.search.tensors.candidate_tensors import CandidateScores
from retrieval.settings import SearchSettings
from tests.support.synthetic_index import add_segments

COSINES = np.array([1.0000001, 0.25, -1.0000002, 1.0000002], np.float32)


@pytest.fixture
def reader(tmp_path: Path) -> IndexReader:
    add_segments(tmp_path / "e.diffsim", [4], 8)
    return IndexReader(tmp_path / "e.diffsim")


def scored(scores: np.ndarray) -> CandidateScores:
    return CandidateScores(scores, np.ones(len(scores), bool))


def test_equal_scores_are_ordered_by_id() -> None:
    scores, ids = np.array([0.5, 0.9, 0.5, 0.5], np.float32), np.array([7, 3, 2, 5])
    assert ids[closest_first(scores, ids)].tolist() == [3, 2, 5, 7]
    assert ids[closest_first(scores, ids, "mse")].tolist() == [2, 5, 7, 3]


def test_a_cosine_beyond_one_is_clamped_after_it_has_decided_the_order(reader: IndexReader) -> None:
    assert COSINES.max() > 1 > -1 > COSINES.min()
    candidates = Candidates(np.arange(4), COSINES[::-1].copy())
    found = rank_candidates(reader, candidates, scored(COSINES), SearchSettings())
    assert [(r.id, r.score, r.coarse_score) for r in found] == [(3, 1, 1), (0, 1, 1), (1, 0.25, -1), (2, -1, 0.25)]
    assert [r.coarse_rank for r in found] == [4, 1, 2, 3]
    by_vectors = rank_candidates(reader, candidates, None, SearchSettings(rerank=False))
    assert [(r.id, r.score, r.coarse_score) for r in by_vectors] == [
        (0, None, 1.0),
        (1, None, -1.0),
        (2, None, 0.25),
        (3, None, 1.0),
    ]


def test_an_mse_is_not_clamped(reader: IndexReader) -> None:
    scores = np.array([4.0, 0.0, 2.0, 1.5], np.float32)
    candidates = Candidates(np.arange(4), None)
    found = rank_candidates(reader, candidates, scored(scores), SearchSettings(similarity="mse", min_score=2.0))
    assert [(r.id, r.score, r.coarse_rank) for r in found] == [(1, 0.0, None), (3, 1.5, None), (2, 2.0, None)]


def test_candidates_without_a_score_are_no_results(reader: IndexReader) -> None:
    scores = CandidateScores(COSINES, np.array([False, True, True, False]))
    assert scores.left_out == 2
    found = rank_candidates(reader, Candidates(np.arange(4), COSINES), scores, SearchSettings())
    assert [r.id for r in found] == [1, 2]
