"""Candidate generation, the first stage of a search: the images that the exact score will order."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.catalog import absolute_uri
from index_store.files import corrupt
from index_store.reader import IndexReader
from retrieval.encoding.coarse_encoders import encoders_of_mode
from retrieval.errors import UsageError
from retrieval.models.modes import Mode
from retrieval.search.gpu_index import VectorIndex, open_vector_index
from retrieval.search.queries.query import Query
from retrieval.settings import CANDIDATES, SearchSettings

RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher, 2009: damps the first ranks so that no encoder decides alone

Vectors = Mapping[str, NDArray[np.float32]]
"""The vectors ``[vectors, dim]`` that ask for one question's candidates, by encoder; each of them asks alone."""


@dataclass(frozen=True)
class Candidates:
    """Rows of the index, best first, and their mean cosines over the encoders."""

    rows: NDArray[np.int64]
    # None: the index has no vectors. NaN: the image has none, which only an exhaustive search lets pass.
    similarities: NDArray[np.float32] | None


class CandidateGenerator:
    """Finds the candidates of queries in one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, modes: Mapping[str, Mode], device: torch.device) -> None:
        """Take an index, its model's modes, and the scoring device; the first search reads the vectors."""
        self._reader, self._modes, self._device = reader, modes, device
        self._indexes: dict[str, VectorIndex] = {}
        self._encoders: dict[str, tuple[str, ...]] = {}
        self._without_vector: dict[str, int] = {}
        self._loading = threading.Lock()

    def generate(
        self,
        vectors: Vectors,
        mode: str,
        wanted: SearchSettings,
        excluded: Sequence[int] = (),
        allowed: NDArray[np.int64] | None = None,
        encoders: Sequence[str] | None = None,
    ) -> Candidates:
        """Return a query's candidates, as if only ``allowed`` rows were in the index, and no ``excluded`` ones.

        Args:
            vectors: of the query.
            mode: whose encoders choose.
            wanted: how many.
            excluded: rows of copies of the query: a few.
            allowed: rows that pass a filter, ascending, all of which are compared; None: all rows.
            encoders: that choose; None: those of the mode.

        Raises:
            UsageError: the index has no vectors, and the ranking by vectors alone is wanted.
        """
        encoders = self.encoders(mode) if encoders is None else encoders
        if not encoders and not wanted.rerank:
            root = self._reader.layout.root
            raise UsageError(f"{root} has no coarse ranking: it was built without encoders", advice="no-coarse-ranking")
        if allowed is not None:
            allowed, excluded = np.setdiff1d(allowed, excluded), ()
        every = np.delete(np.arange(len(self._reader)), excluded) if allowed is None else allowed
        if not len(every) or not encoders:
            return Candidates(every, None)
        asked = [(self._index(name), vectors[name]) for name in encoders]
        for name, (index, query) in zip(encoders, asked, strict=True):
            if index.dim != query.shape[-1]:
                raise corrupt(self._reader.layout.root, f"holds vectors of {name} with {index.dim} numbers each")
        if wanted.exhaustive:
            rows = every
        else:
            count = max(wanted.candidates or CANDIDATES, wanted.k)
            rankings = [_nearest(index, vector, count, excluded, allowed) for index, own in asked for vector in own]
            rows = fuse_rankings(rankings, count)
        cosines = np.stack([_closest(index, own, rows) for index, own in asked])
        has_vector = np.stack([self._reader.has_vector(name)[rows] for name in encoders])
        return Candidates(rows, _mean_where(cosines, has_vector))

    def load(self) -> None:
        """Open the vector index of every mode's encoders now, which the first search of each would do."""
        for encoder in dict.fromkeys(encoder for mode in self._modes for encoder in self.encoders(mode)):
            self._index(encoder)

    def encoders(self, mode: str) -> tuple[str, ...]:
        """Return the encoders that find a mode's candidates: the mode's own, else all that the index has vectors of."""
        if mode not in self._encoders:
            self._encoders[mode] = encoders_of_mode(self._reader, self._modes, mode)
        return self._encoders[mode]

    def vectors(self, encoder: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return an encoder's vectors of ``rows``, float32 of norm 1 ``[rows, dim]``; zeros for a row without one."""
        return self._index(encoder).vectors(rows)

    def without_vector(self, mode: str, allowed: NDArray[np.int64] | None = None) -> int:
        """Return how many images, of the ``allowed`` rows or of all, miss a vector of one of the mode's encoders."""
        if allowed is not None:
            has = [self._reader.has_vector(name)[allowed] for name in self.encoders(mode)]
            return int((~np.all(has, axis=0)).sum()) if has else 0
        if mode not in self._without_vector:
            has = [self._reader.has_vector(name) for name in self.encoders(mode)]
            self._without_vector[mode] = int((~np.all(has, axis=0)).sum()) if has else 0
        return self._without_vector[mode]

    def _index(self, encoder: str) -> VectorIndex:
        with self._loading:
            if encoder not in self._indexes:
                self._indexes[encoder] = open_vector_index(self._reader, encoder, self._device)
            return self._indexes[encoder]


def _nearest(
    index: VectorIndex,
    query: NDArray[np.float32],
    count: int,
    excluded: Sequence[int],
    allowed: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Return the ``count`` rows nearest to ``query [dim]`` that are ``allowed`` and not ``excluded``, best first."""
    rows = index.search(query, count + len(excluded), allowed)[0]
    return rows[~np.isin(rows, excluded)][:count] if excluded else rows


def _closest(index: VectorIndex, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine ``[rows]`` of each row with the most similar of ``vectors [vectors, dim]``."""
    found: NDArray[np.float32] = np.max([index.similarities(vector, rows) for vector in vectors], axis=0)
    return found


def _mean_where(cosines: NDArray[np.float32], has_vector: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean over encoders ``[rows]`` of the cosines ``[encoders, rows]`` that there are; NaN for none."""
    if has_vector.all():
        whole: NDArray[np.float32] = np.mean(cosines, axis=0, dtype=np.float32)
        return whole
    known = has_vector.sum(axis=0)
    means = np.where(known > 0, np.where(has_vector, cosines, 0).sum(axis=0) / np.maximum(known, 1), np.nan)
    return means.astype(np.float32)


def fuse_rankings(rankings: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Return the ``count`` best rows by reciprocal rank fusion, ``sum over rankings of 1 / (60 + rank)``.

    Args:
        rankings: rows of each encoder, best first; a row that is missing from a ranking gets nothing from it.
        count: how many rows are wanted.

    Returns:
        int64 ``[min(count, rows in all)]``, best first; ties by row number, lowest first.
    """
    rows = np.unique(np.concatenate(rankings)) if rankings else np.empty(0, np.int64)
    shares = np.zeros((len(rankings), len(rows)))
    for encoder, ranking in enumerate(rankings):
        shares[encoder, np.searchsorted(rows, ranking)] = 1.0 / (RRF_CONSTANT + 1.0 + np.arange(len(ranking)))
    # Sorted before they are added, so that rounding, and with it a tie, does not depend on the order of encoders.
    scores = np.sort(shares, axis=0).sum(axis=0)
    order = np.lexsort((rows, -scores))[:count]
    fused: NDArray[np.int64] = rows[order]
    return fused


def rows_of(reader: IndexReader, question: Query, copies: bool) -> set[int]:
    """Return the rows that are images of a question that was read, and those with their bytes if ``copies``."""
    asked = {("uri", absolute_uri(picture.path)) for picture in question.pictures if picture.path}
    if copies:
        asked |= {("sha256", picture.sha256) for picture in question.pictures if picture.sha256}
    return {row for column, value in asked for row in reader.find(column, value)}
