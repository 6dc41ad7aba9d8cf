"""The coarse stage of a large index: a trained index over most rows, and a scan of what is new since."""

import numpy as np
from numpy.typing import NDArray

from index_store.vectors.exact import Floats, Ranked, best_first, cosines_of
from index_store.vectors.flat import FlatIndex
from index_store.vectors.ivf import IVFIndex
from index_store.vectors.storage import normalised

_TRAINED, _NOWHERE = -1, -2  # where a vector is that is not scanned


class IVFAndRestIndex:
    """What :class:`index_store.vectors.flat.FlatIndex` is for a small index, with the same cosines; thread-safe."""

    def __init__(
        self,
        trained: IVFIndex,
        ids: NDArray[np.int64],
        held: NDArray[np.bool_],
        rest: NDArray[np.int64],
        rest_vectors: Floats,
    ) -> None:
        """Take the parts together.

        Args:
            trained: holds every live row that has a vector and is not in ``rest``; leaves out those that are dead.
            ids: the live rows' ids, ascending.
            held: which of them have a vector; no search finds the others.
            rest: rows that are scanned; all have one.
            rest_vectors: these, float32 of norm 1.
        """
        self._trained, self._ids, self._rest, self._rest_vectors = trained, ids, rest, rest_vectors
        self._trained_rows = int(held.sum()) - len(rest)
        self._scanned = FlatIndex(rest_vectors) if len(rest) else None
        self._place = np.where(held, _TRAINED, _NOWHERE)  # or among the rows that are scanned
        self._place[rest] = np.arange(len(rest))

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: Floats, count: int) -> Ranked:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; ties by row, lowest first.

        Always ``count`` of them, where so many rows have a vector.
        """
        ids = self._trained.search(query, min(count, self._trained_rows))
        found = [np.searchsorted(self._ids, ids)]
        if self._scanned is not None:
            found.append(self._rest[self._scanned.search(query, count)[0]])
        rows = np.concatenate(found)
        return best_first(rows, self.similarities(query, rows), count)

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order; 0 for one without a vector."""
        return cosines_of(self._read, rows, query)

    def _read(self, rows: NDArray[np.int64]) -> Floats:
        place = self._place[rows]
        vectors = np.zeros((len(rows), self._trained.dim), np.float32)
        old, new = place == _TRAINED, place >= 0
        if old.any():
            vectors[old] = normalised(self._trained.vectors(self._ids[rows[old]]))
        vectors[new] = self._rest_vectors[place[new]]
        return vectors
