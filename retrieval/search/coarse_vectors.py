"""The coarse stage's view of an index: nearest neighbours and cosines by encoder, wherever the vectors lie.

Questions come in lists, so that vectors that lie on other machines are asked once for all of them.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from index_store.vectors.exact import Ranked
from retrieval.search.gpu_index import VectorIndex, open_vector_index

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NearestAsk:
    """Asks for the rows nearest to one vector."""

    encoder: str
    vector: Floats  # [dim], norm 1
    count: int  # rows that are wanted
    allowed: Rows | None = None  # only these rows are found, ascending; None: all


@dataclass(frozen=True)
class CosinesAsk:
    """Asks for the cosines of rows with the most similar of some vectors."""

    encoder: str
    vectors: Floats  # [vectors, dim], norm 1
    rows: Rows


class CoarseVectors(Protocol):
    """The vectors of one opened index; safe in many threads."""

    def dim(self, encoder: str) -> int:
        """Return how many entries a vector of ``encoder`` has."""
        ...

    def nearest(self, asks: Sequence[NearestAsk]) -> list[Ranked]:
        """Return the nearest rows for each ask and their cosines, best first; ties by row, lowest first."""
        ...

    def cosines(self, asks: Sequence[CosinesAsk]) -> list[Floats]:
        """Return the cosines ``[rows]`` for each ask; 0 for a row without a vector."""
        ...

    def vectors(self, encoder: str, rows: Rows) -> Floats:
        """Return the vectors of ``rows``, of norm 1, float32 ``[rows, dim]``; zeros for a row without one."""
        ...


class LocalVectors:
    """The vectors of an index in this process; the first question about an encoder reads its vectors."""

    def __init__(self, reader: IndexReader, device: torch.device) -> None:
        """Take an opened index, and the device that scans the vectors where they fit."""
        self._reader, self._device = reader, device
        self._indexes: dict[str, VectorIndex] = {}
        self._loading = threading.Lock()

    def dim(self, encoder: str) -> int:
        """See :class:`CoarseVectors`."""
        return self._index(encoder).dim

    def nearest(self, asks: Sequence[NearestAsk]) -> list[Ranked]:
        """See :class:`CoarseVectors`."""
        return [self._index(ask.encoder).search(ask.vector, ask.count, ask.allowed) for ask in asks]

    def cosines(self, asks: Sequence[CosinesAsk]) -> list[Floats]:
        """See :class:`CoarseVectors`."""
        return [closest(self._index(ask.encoder), ask.vectors, ask.rows) for ask in asks]

    def vectors(self, encoder: str, rows: Rows) -> Floats:
        """See :class:`CoarseVectors`."""
        return self._index(encoder).vectors(rows)

    def _index(self, encoder: str) -> VectorIndex:
        with self._loading:
            if encoder not in self._indexes:
                self._indexes[encoder] = open_vector_index(self._reader, encoder, self._device)
            return self._indexes[encoder]


def closest(index: VectorIndex, vectors: Floats, rows: Rows) -> Floats:
    """Return the cosine ``[rows]`` of each row with the most similar of ``vectors [vectors, dim]``."""
    found: Floats = np.max([index.similarities(vector, rows) for vector in vectors], axis=0)
    return found
