"""The coarse stage of a large index: a trained index over most rows, and a scan of what is new since."""

import numpy as np
from numpy.typing import NDArray

from index_store.coarse import CoarseIndex, Floats, best_first, cosines, normalised
from index_store.trained import TrainedIndex

SPARE = 1.1  # of the candidates wanted: float16 norms vary by 1e-3, so the order before re-scoring is not quite exact


class GrownIndex:
    """What :class:`index_store.coarse.CoarseIndex` is for a small index, with the same cosines; thread-safe."""

    def __init__(
        self,
        trained: TrainedIndex,
        ids: NDArray[np.int64],
        rest: NDArray[np.int64],
        rest_vectors: Floats,
    ) -> None:
        """Take the parts together.

        Args:
            trained: holds every live row that is not in ``rest``, and leaves out those that are dead.
            ids: the live rows' ids, ascending.
            rest: rows that are scanned.
            rest_vectors: their vectors, float32 of norm 1.
        """
        self._trained, self._ids, self._rest = trained, ids, rest
        self._scanned = CoarseIndex(rest_vectors) if len(rest) else None
        self._place = np.full(len(ids), -1)  # among the rows that are scanned
        self._place[rest] = np.arange(len(rest))

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; ties by row, lowest first."""
        found = [np.searchsorted(self._ids, self._trained.search(query, int(SPARE * count)))]
        if self._scanned is not None:
            found.append(self._rest[self._scanned.search(query, count)[0]])
        rows = np.concatenate(found)
        return best_first(rows, self.similarities(query, rows), count)

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order."""
        place = self._place[rows]
        new = place >= 0
        found = np.empty(len(rows), np.float32)
        if self._scanned is not None:
            found[new] = self._scanned.similarities(query, place[new])
        if not new.all():
            found[~new] = cosines(normalised(self._trained.vectors(self._ids[rows[~new]])), query)
        return found
