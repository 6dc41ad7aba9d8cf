"""From scored candidates to results: order, threshold, and the numbers that people see."""

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.scoring.aas import bounded, higher_is_closer
from retrieval.search.candidate_tensors import CandidateScores
from retrieval.search.candidates import Candidates
from retrieval.search.results import Result
from retrieval.settings import SearchSettings
from retrieval.types import Similarity


def rank_candidates(
    reader: IndexReader, candidates: Candidates, scored: CandidateScores | None, wanted: SearchSettings
) -> tuple[Result, ...]:
    """Return the ``wanted.k`` closest candidates.

    Cosines that rounding took past 1 or -1 are clamped here, after the order is decided.

    Args:
        reader: the index.
        candidates: the first stage's, in its order.
        scored: their exact scores; None: the first stage's order counts.
        wanted: how many results, and the worst score that is let through.
    """
    order = _order(reader, candidates, scored, wanted)[: wanted.k]
    has_no_rank = wanted.exhaustive or candidates.similarities is None
    return tuple(
        Result(
            rank=rank,
            id=item.id,
            path=item.uri,
            score=None if scored is None else bounded(float(scored.scores[position]), wanted.similarity),
            coarse_score=_coarse_score(candidates.similarities, position),
            coarse_rank=None if has_no_rank else position + 1,
            sha256=item.sha256,
        )
        for rank, (position, item) in enumerate(
            zip(order.tolist(), reader.items(candidates.rows[order]), strict=True), start=1
        )
    )


def _order(
    reader: IndexReader, candidates: Candidates, scored: CandidateScores | None, wanted: SearchSettings
) -> NDArray[np.int64]:
    """Return positions among the candidates, closest first, of those with a score that is let through."""
    order = np.arange(len(candidates.rows))
    keys = candidates.similarities
    if scored is not None:
        order = closest_first(scored.scores, reader.ids[candidates.rows], wanted.similarity)
        order, keys = order[scored.is_scored[order]], scored.scores
    if wanted.min_score is not None and keys is not None:
        closer = higher_is_closer(wanted.similarity) or scored is None
        order = order[keys[order] >= wanted.min_score] if closer else order[keys[order] <= wanted.min_score]
    return order


def _coarse_score(similarities: NDArray[np.float32] | None, position: int) -> float | None:
    if similarities is None or np.isnan(similarities[position]):
        return None
    return bounded(float(similarities[position]))


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
