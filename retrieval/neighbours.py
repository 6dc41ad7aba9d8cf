"""Candidates and their scores to the neighbours that a search returns."""

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.aas import higher_is_closer
from retrieval.candidates import Ranking
from retrieval.on_demand import Scored
from retrieval.rerank import closest_first
from retrieval.results import Result
from retrieval.settings import SearchSettings

SPARE = 16  # copies of the query's file that may have to be left out


def nearest(
    reader: IndexReader, ranking: Ranking, scored: Scored | None, wanted: SearchSettings, query_sha256: str
) -> tuple[Result, ...]:
    """Return the ``wanted.k`` nearest of the ranked candidates, by their scores or, where there are none, as ranked.

    Args:
        reader: the index.
        ranking: what the coarse stage found.
        scored: the exact scores of ``ranking.rows``.
        wanted: how many, and what is left out.
        query_sha256: of the query's file, empty where it has none.
    """
    rows = ranking.rows
    scores = None if scored is None else scored.scores
    order = _order(reader, ranking, scored, wanted)
    found: list[Result] = []
    items = reader.items(rows[order[: wanted.k + (SPARE if wanted.exclude_query else 0)]])
    for position, item in zip(order.tolist(), items, strict=False):
        if len(found) == wanted.k:
            break
        if wanted.exclude_query and item.sha256 == query_sha256:
            continue
        found.append(
            Result(
                rank=len(found) + 1,
                id=item.id,
                path=item.uri,
                score=None if scores is None else float(scores[position]),
                coarse_score=_known(ranking.similarities, position),
                coarse_rank=None if wanted.exhaustive or ranking.similarities is None else position + 1,
                sha256=item.sha256,
            )
        )
    return tuple(found)


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
