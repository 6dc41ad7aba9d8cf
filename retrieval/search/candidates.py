"""The coarse stage: which images of an index the exact score is to order."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.errors import UsageError
from retrieval.models.modes import Mode
from retrieval.search.gpu_index import VectorIndex, open_vector_index
from retrieval.settings import SearchSettings

RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher, 2009: damps the first ranks so that no encoder decides alone


Vectors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Ranking:
    """Candidates before the exact scores: rows, best first, with the coarse stage's word where there is one."""

    rows: NDArray[np.int64]
    # Mean cosine over the encoders; NaN: the image has no vector, which only an exhaustive search lets pass.
    similarities: NDArray[np.float32] | None


class CandidatePicker:
    """The coarse stage of one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, modes: Mapping[str, Mode], device: torch.device) -> None:
        """Take an index, its model's modes, and where scores are computed; vectors are read at the first search."""
        self._reader, self._modes, self._device = reader, modes, device
        self._indexes: dict[str, VectorIndex] = {}
        self._chosen: dict[str, tuple[str, ...]] = {}
        self._lacking: dict[str, int] = {}
        self._loading = threading.Lock()

    def pick(self, vectors: Vectors, mode: str, wanted: SearchSettings, without: Sequence[int] = ()) -> Ranking:
        """Return the candidates for a query's ``vectors`` ``[1, dim]``, by encoder, as if rows ``without`` weren't."""
        encoders = self.encoders(mode)
        if not encoders and not wanted.rerank:
            raise UsageError(f"{self._reader.layout.root} has no coarse stage (it was built with --encoders none)")
        if len(without) == len(self._reader) or not encoders:
            return Ranking(self._all_rows(without), None)
        indexes = {name: self._index(name) for name in encoders}
        if wanted.exhaustive:
            rows = self._all_rows(without)
        else:
            count = max(wanted.candidates, wanted.k)
            rankings = [_nearest(index, vectors[name][0], count, without) for name, index in indexes.items()]
            rows = fuse_rankings(rankings, count)
        cosines = np.stack([index.similarities(vectors[name][0], rows) for name, index in indexes.items()])
        held = np.stack([self._reader.has_vector(name)[rows] for name in encoders])
        if held.all():
            return Ranking(rows, np.mean(cosines, axis=0, dtype=np.float32))
        known = held.sum(axis=0)
        means = np.where(known > 0, np.where(held, cosines, 0).sum(axis=0) / np.maximum(known, 1), np.nan)
        return Ranking(rows, means.astype(np.float32))

    def _all_rows(self, without: Sequence[int]) -> NDArray[np.int64]:
        return np.delete(np.arange(len(self._reader)), without)

    def encoders(self, mode: str) -> tuple[str, ...]:
        """Return the encoders that pick a mode's candidates: the mode's own, else all that the index has vectors of."""
        if mode not in self._chosen:
            self._chosen[mode] = self._choose(mode)
        return self._chosen[mode]

    def _choose(self, mode: str) -> tuple[str, ...]:
        has = [name for name in self._reader.generation.encoders if self._is_usable(name)]
        preferred = self._modes[mode].encoders if mode in self._modes else ()
        return tuple(name for name in preferred if name in has) or tuple(has)

    def without_vector(self, mode: str) -> int:
        """Return how many images lack a vector of any of the encoders that pick a mode's candidates."""
        if mode not in self._lacking:
            held = [self._reader.has_vector(name) for name in self.encoders(mode)]
            self._lacking[mode] = int((~np.all(held, axis=0)).sum()) if held else 0
        return self._lacking[mode]

    def _is_usable(self, encoder: str) -> bool:
        return not len(self._reader) or bool(self._reader.has_vector(encoder).any())

    def _index(self, encoder: str) -> VectorIndex:
        with self._loading:
            if encoder not in self._indexes:
                self._indexes[encoder] = open_vector_index(self._reader, encoder, self._device)
            return self._indexes[encoder]


def _nearest(index: VectorIndex, query: NDArray[np.float32], count: int, without: Sequence[int]) -> NDArray[np.int64]:
    """Return the ``count`` rows nearest to ``query [dim]`` that are not ``without``, best first."""
    rows = index.search(query, count + len(without))[0]
    return rows[~np.isin(rows, without)][:count] if without else rows


def fuse_rankings(rankings: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Return the ``count`` best rows by reciprocal rank fusion, ``sum over rankings of 1 / (60 + rank)``.

    Args:
        rankings: rows of each encoder, best first; a row that one of them lacks gets nothing there.
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
