"""Local scaling of scores (CSLS, Conneau et al., 2018): what is near everything counts less.

A ranking by ``score - r / 2`` takes off how near a candidate is to its own neighbours: r is its mean score with its
nearest ones. The query's own mean changes no order. Exact means would cost a search for every candidate, so r is the
mean cosine of the coarse vectors, times the slope of exact scores over cosines among random pairs.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from index_store.vectors.exact import Floats
from retrieval.errors import UsageError
from retrieval.search.candidates import CandidateGenerator
from retrieval.search.index_percentiles import IndexPercentiles
from retrieval.search.queries.query import Query
from retrieval.settings import SearchSettings
from retrieval.types import Scaling

NEIGHBOURS = 10  # nearest images of a candidate that r is the mean of
REFERENCES = 2048  # random images that neighbours are looked for among: then 200 candidates take 20 ms in any index
WEIGHT = 0.5  # of r, as published
_BLOCK = 1024  # candidates at a time
_SEED = 2025


def scaling_of(question: Query, settings: SearchSettings) -> Scaling:
    """Return how a question's scores are scaled: where nobody chose, those of several whole images are."""
    if settings.scaling is not None:
        return settings.scaling
    is_board = len(question.images) > 1 and question.is_whole and settings.similarity == "cosine"
    return "csls" if is_board and not settings.mode_weights else "none"


class LocalScaling:
    """Measures the neighbourhoods of candidates in one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, generator: CandidateGenerator, percentiles: IndexPercentiles) -> None:
        """Take an opened index; the first scaled search reads the vectors of the reference images."""
        self._reader, self._generator, self._percentiles = reader, generator, percentiles
        self._references: dict[str, tuple[NDArray[np.int64], Floats]] = {}
        self._reading = threading.Lock()

    def offsets(self, mode: str, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return what is taken off the scores of ``rows``, float64 ``[rows]``; None if the index can't tell."""
        slope, encoders = self._percentiles.slope(mode), self._generator.encoders(mode)
        if slope is None or not encoders:
            return None
        means = [self._means(name, rows) for name in encoders]
        offsets: NDArray[np.float64] = np.round(WEIGHT * slope * np.mean(means, axis=0), 6)  # copies are equal
        return offsets

    def required(self, mode: str) -> None:
        """Raise UsageError unless :meth:`offsets` can tell."""
        if self._percentiles.slope(mode) is None or not self._generator.encoders(mode):
            self._percentiles.required(mode)
            raise UsageError(f"{self._reader.layout.root} has no vectors of {mode}, so scores can't be scaled")

    def _means(self, encoder: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the mean cosine of each row with its nearest reference images; that of all for rows without vector."""
        own, references = self._of(encoder)
        if not len(own):
            return np.zeros(len(rows))
        found = [
            _nearest_mean(self._generator.vectors(encoder, rows[start : start + _BLOCK]), references,
                          rows[start : start + _BLOCK, None] == own[None])
            for start in range(0, len(rows), _BLOCK)
        ]  # fmt: skip
        means: NDArray[np.float64] = np.concatenate(found) if found else np.zeros(0)
        held = self._reader.has_vector(encoder)[rows]
        means[~held] = means[held].mean() if held.any() else 0.0
        return means

    def _of(self, encoder: str) -> tuple[NDArray[np.int64], Floats]:
        with self._reading:
            if encoder not in self._references:
                held = np.flatnonzero(self._reader.has_vector(encoder))
                rows = np.sort(np.random.default_rng(_SEED).permutation(held)[:REFERENCES])
                self._references[encoder] = rows, self._generator.vectors(encoder, rows)
            return self._references[encoder]


def _nearest_mean(vectors: Floats, references: Floats, same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each vector's mean cosine with its nearest references, without those that are ``same`` image."""
    cosines = np.where(same, -np.inf, vectors @ references.T)
    count = min(NEIGHBOURS, cosines.shape[1])
    nearest = -np.partition(-cosines, count - 1, axis=1)[:, :count]
    others = np.isfinite(nearest)
    means: NDArray[np.float64] = np.where(others, nearest, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    return means.astype(np.float64)
