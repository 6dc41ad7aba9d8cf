"""From scored candidates to results: order, threshold, and the numbers that people see."""

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.images.file_states import is_there
from retrieval.scoring.aas import bounded, higher_is_closer
from retrieval.search.candidates import Candidates
from retrieval.search.judging import Judgement
from retrieval.search.results import Result
from retrieval.search.tensors.candidate_tensors import CandidateScores
from retrieval.settings import SearchSettings
from retrieval.types import Similarity


def rank_candidates(
    reader: IndexReader,
    candidates: Candidates,
    scored: CandidateScores | None,
    wanted: SearchSettings,
    judged: Judgement | None = None,
    keys: NDArray[np.float64] | None = None,
) -> tuple[Result, ...]:
    """Return the ``wanted.k`` closest candidates.

    Cosines that rounding took past 1 or -1 are clamped here, after the order is decided.

    Args:
        reader: the index.
        candidates: the first stage's, in its order.
        scored: their exact scores; None: the first stage's order counts.
        wanted: how many results, and the worst score and percentile that are let through.
        judged: their percentiles; None: there are none.
        keys: what the order goes by, higher first, in place of the scores.
    """
    order = _order(reader, candidates, scored, wanted, judged, keys)[: wanted.k]
    ranked = zip(order.tolist(), reader.items(candidates.rows[order]), strict=True)
    return tuple(
        Result(
            *(rank, item.id, item.uri, _score(scored, at, wanted), *_coarse(candidates, at, wanted), item.sha256),
            is_gone=not is_there(item.uri),
            **({} if judged is None else judged.at(at)),
            order_key=None if keys is None else round(float(keys[at]), 6),
        )
        for rank, (at, item) in enumerate(ranked, start=1)
    )


def _score(scored: CandidateScores | None, position: int, wanted: SearchSettings) -> float | None:
    return None if scored is None else bounded(float(scored.scores[position]), wanted.similarity)


def _coarse(candidates: Candidates, position: int, wanted: SearchSettings) -> tuple[float | None, int | None]:
    """Return a candidate's mean cosine and its place in the first stage."""
    if candidates.similarities is None:
        return None, None
    cosine = float(candidates.similarities[position])
    return None if np.isnan(cosine) else bounded(cosine), None if wanted.exhaustive else position + 1


def _order(
    reader: IndexReader,
    candidates: Candidates,
    scored: CandidateScores | None,
    wanted: SearchSettings,
    judged: Judgement | None,
    chosen: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """Return positions among the candidates, closest first, of those with a score that is let through."""
    order = np.arange(len(candidates.rows))
    keys = candidates.similarities
    if scored is not None:
        order = closest_first(
            scored.scores if chosen is None else chosen, reader.ids[candidates.rows], wanted.similarity
        )
        order, keys = order[scored.is_scored[order]], scored.scores
    if wanted.min_score is not None and keys is not None:
        closer = higher_is_closer(wanted.similarity) or scored is None
        order = order[keys[order] >= wanted.min_score] if closer else order[keys[order] <= wanted.min_score]
    if wanted.min_percentile is not None and judged is not None:
        order = order[judged.main.percentiles[order] >= wanted.min_percentile]
    return order


def closest_first(
    scores: NDArray[np.float32] | NDArray[np.float64], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
