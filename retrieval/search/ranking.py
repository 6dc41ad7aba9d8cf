"""Candidates and their scores to the neighbours that a search returns."""

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.scoring.aas import higher_is_closer
from retrieval.search.candidates import Ranking
from retrieval.search.results import Result
from retrieval.search.tensor_sources import Scored
from retrieval.settings import SearchSettings
from retrieval.types import Similarity


def nearest(reader: IndexReader, ranking: Ranking, scored: Scored | None, wanted: SearchSettings) -> tuple[Result, ...]:
    """Return the ``wanted.k`` nearest of the ranked candidates, by their scores or, where there are none, as ranked.

    Args:
        reader: the index.
        ranking: what the coarse stage found.
        scored: the exact scores of ``ranking.rows``.
        wanted: how many, and how bad they may be.
    """
    scores = None if scored is None else scored.scores
    order = _order(reader, ranking, scored, wanted)[: wanted.k]
    return tuple(
        Result(
            rank=rank,
            id=item.id,
            path=item.uri,
            score=None if scores is None else float(scores[position]),
            coarse_score=_known(ranking.similarities, position),
            coarse_rank=None if wanted.exhaustive or ranking.similarities is None else position + 1,
            sha256=item.sha256,
        )
        for rank, (position, item) in enumerate(
            zip(order.tolist(), reader.items(ranking.rows[order]), strict=True), start=1
        )
    )


def _order(reader: IndexReader, ranking: Ranking, scored: Scored | None, wanted: SearchSettings) -> NDArray[np.int64]:
    """Return positions among the candidates, closest first, without those that have no score or too bad a one."""
    order = np.arange(len(ranking.rows))
    keys = ranking.similarities
    if scored is not None:
        order = closest_first(scored.scores, reader.ids[ranking.rows], wanted.similarity)
        order, keys = order[scored.is_scored[order]], scored.scores
    if wanted.min_score is not None and keys is not None:
        closer = higher_is_closer(wanted.similarity) or scored is None
        order = order[keys[order] >= wanted.min_score] if closer else order[keys[order] <= wanted.min_score]
    return order


def _known(similarities: NDArray[np.float32] | None, position: int) -> float | None:
    return None if similarities is None or np.isnan(similarities[position]) else float(similarities[position])


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
