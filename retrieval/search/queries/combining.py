"""Several images as one question: what is scored, how scores are joined, and which vectors choose candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.scoring.aas import QKV, higher_is_closer
from retrieval.search.queries.query import Query
from retrieval.search.tensors.candidate_tensors import CandidateScores, Scored
from retrieval.types import Similarity

AWAY = 0.5  # share of the score that an image to move away from takes off: half, so that likeness still leads


def join_views(found: Sequence[CandidateScores]) -> CandidateScores:
    """Return the mean scores of a region at full size and drawn small; a single view stays as it is."""
    if len(found) == 1:
        return found[0]
    return _summed(found, np.mean([each.scores for each in found], axis=0, dtype=np.float64))


def scored_parts(query: Query, images: Sequence[Scored]) -> list[Scored]:
    """Return what is scored against the candidates: every image on its own, or the union as one.

    A union with a region looks for itself, as a region does; regions are in it at full size.

    Args:
        query: a question that was read.
        images: its images and those to move away from, as each would be scored alone.
    """
    count = len(query.images)
    if query.combine != "union" or count == 1:
        return list(images)
    parts = images[:count]
    directions = next((part.directions for part in parts if part.directions is not None), None)
    union = Scored(QKV.union([part.qkv for part in parts]), _union_mask(query, parts), directions)
    return [union, *images[count:]]


def _union_mask(query: Query, parts: Sequence[Scored]) -> Tensor | None:
    """Return how much each token of a union counts: by the weight of its image, and by that image's mask."""
    if len(set(query.image_weights)) == 1 and all(part.mask is None for part in parts):
        return None
    weighed = zip(query.image_weights, parts, strict=True)
    return torch.cat(
        [
            weight * (torch.ones(part.qkv.q.shape[3]) if part.mask is None else part.mask / part.mask.mean())
            for weight, part in weighed
        ]
    )


def combine_scores(query: Query, found: Sequence[CandidateScores], similarity: Similarity) -> CandidateScores:
    """Join the scores of a question's parts; every part has the same candidates."""
    if len(found) == 1:
        return found[0]
    away = found[len(found) - len(query.minus) :] if query.minus else []
    toward = found[: len(found) - len(away)]
    scores = _joined(query, np.stack([each.scores for each in toward]), similarity)
    for weight, each in zip(query.minus_image_weights, away, strict=True):
        scores = scores - AWAY * weight / len(away) * each.scores
    return _summed(found, scores)


def _summed(found: Sequence[CandidateScores], scores: NDArray[np.float64]) -> CandidateScores:
    """Return the ``scores`` that were made of those ``found``, with the time of all."""
    times = [each.timing_ms for each in found]
    timing = {part: sum(each[part] for each in times) for part in times[0]}
    return replace(found[0], scores=scores.astype(np.float32), timing_ms=timing)


def _joined(query: Query, scores: NDArray[np.float32], similarity: Similarity) -> NDArray[np.float64]:
    """Join ``scores [images, candidates]`` of the images that results should be like."""
    joined: NDArray[np.float64]
    if len(scores) == 1:
        joined = scores[0].astype(np.float64)
    elif query.combine == "max":
        closest = scores.max(axis=0) if higher_is_closer(similarity) else scores.min(axis=0)
        joined = closest.astype(np.float64)
    else:
        joined = np.average(scores.astype(np.float64), axis=0, weights=query.image_weights)
    return joined


def coarse_vectors(query: Query, vectors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the vectors ``[questions, dim]`` that choose a question's candidates, by encoder.

    The closest of several images can be any of them, so each asks on its own. Otherwise their weighted mean asks.
    Images to move away from don't choose: candidates near them are pushed back by the exact score.

    Args:
        query: a question that was read.
        vectors: of its images and of those to move away from, float32 ``[images, dim]``, by encoder.
    """
    count = len(query.images)
    toward = {name: found[:count] for name, found in vectors.items()}
    if count == 1 or query.combine == "max":
        return toward
    return {name: _mean(found, query.image_weights) for name, found in toward.items()}


def _mean(vectors: NDArray[np.float32], weights: Sequence[float]) -> NDArray[np.float32]:
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    norm = np.linalg.norm(mean)
    return (mean / norm if norm > 0 else mean).astype(np.float32)[None]
