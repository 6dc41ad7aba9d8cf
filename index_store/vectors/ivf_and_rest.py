"""The vector index of a large index: IVF over most rows, and a scan of the rows that are newer than it."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from index_store.vectors.exact import FEW_ROWS, Floats, Ranked, Rows, best_first, cosines_of, exact_nearest, rounding
from index_store.vectors.flat import FlatIndex
from index_store.vectors.ivf import IVFIndex
from index_store.vectors.mapped import MappedVectors

HALF_NORM = 2.0**-10  # the norm of a float16 vector differs less from 1: its numbers have 11 bits
_IN_IVF, _NO_VECTOR = -1, -2  # instead of a position among the scanned rows


class IVFAndRestIndex:
    """The same interface and the same cosines as :class:`index_store.vectors.flat.FlatIndex`; thread-safe."""

    def __init__(
        self,
        ivf: IVFIndex,
        stored: MappedVectors,
        ids: NDArray[np.int64],
        held: NDArray[np.bool_],
        rest: NDArray[np.int64],
        rest_vectors: Floats,
    ) -> None:
        """Combine the two parts.

        Args:
            ivf: holds every live row that has a vector and is not in ``rest``; leaves out removed items.
            stored: the vectors of the rows that ``ivf`` holds.
            ids: the live rows' ids, ascending.
            held: which live rows have a vector; searches find no others.
            rest: live rows to scan; all have a vector.
            rest_vectors: the vectors of ``rest``, float32 of norm 1.
        """
        self._ivf, self._stored, self._ids, self._rest, self._rest_vectors = ivf, stored, ids, rest, rest_vectors
        self._ivf_rows = int(held.sum()) - len(rest)
        self._flat = FlatIndex(rest_vectors) if len(rest) else None
        self._gapless = bool(len(ids)) and int(ids[-1] - ids[0]) == len(ids) - 1  # nothing was removed
        self._position = np.where(held, np.int32(_IN_IVF), np.int32(_NO_VECTOR))
        self._position[rest] = np.arange(len(rest))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self._ivf.dim

    def search(self, query: Floats, count: int, allowed: Rows | None = None) -> Ranked:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; the lowest row among equals.

        There are always ``count`` of them, unless fewer rows have a vector. Only ``allowed`` rows are found, ascending;
        they are all compared, so that the answer is exact. None: all rows, of which probing may miss some.
        """
        if allowed is not None:
            return self._search_among(query, count, allowed[self._position[allowed] != _NO_VECTOR])
        rows = self._rows_of(self._ivf.search(query, min(count, self._ivf_rows)))
        if self._flat is not None:
            rows = np.concatenate([rows, self.newer(query, count)])
        return self._best(query, rows, count)

    def _best(self, query: Floats, rows: Rows, count: int) -> Ranked:
        """Order ``rows`` by their cosines, without NaN: training leaves such rows out, a stranger's file may not."""
        cosines = self.similarities(query, rows)
        known = ~np.isnan(cosines)
        return best_first(rows[known], cosines[known], count)

    @property
    def ivf_rows(self) -> int:
        """How many rows the IVF part finds."""
        return self._ivf_rows

    @property
    def ivf(self) -> IVFIndex:
        """The IVF part."""
        return self._ivf

    def probe(self, query: Floats, count: int, probes: int) -> Ranked:
        """Return rows of the IVF part and their products; see :meth:`index_store.vectors.ivf.IVFIndex.probe`."""
        ids, products = self._ivf.probe(query, count, probes)
        return self._rows_of(ids), products

    def _rows_of(self, ids: NDArray[np.int64]) -> Rows:
        """Return the rows of live ``ids``, any shape."""
        return ids - self._ids[0] if self._gapless else np.searchsorted(self._ids, ids)

    def newer(self, query: Floats, count: int) -> NDArray[np.int64]:
        """Return the rows nearest to ``query [dim]`` among those that are newer than the IVF part, best first."""
        return self._rest[:0] if self._flat is None else self._rest[self._flat.search(query, count)[0]]

    def search_many(self, queries: Floats, count: int) -> Ranked:
        """Return rows near to each of ``queries [queries, dim]`` and their cosines, both ``[queries, count]``.

        The cosines and their order are those of :meth:`search`. A place without a row holds -1 and a cosine of -inf.
        """
        ids = self._ivf.search_many(queries, count)
        near = np.where(ids < 0, -1, self._rows_of(ids))
        if self._flat is not None:
            newer = self._flat.search_many(queries, count)[0]
            near = np.concatenate([near, np.where(newer < 0, -1, self._rest[newer])], axis=1)
        rows = np.full((len(queries), count), -1, np.int64)
        cosines = np.full((len(queries), count), -np.inf, np.float32)
        for number, query in enumerate(queries):
            there = near[number][near[number] >= 0]
            best, similarities = self._best(query, there, count)
            rows[number, : len(best)], cosines[number, : len(best)] = best, similarities
        return rows, cosines

    def _search_among(self, query: Floats, count: int, rows: Rows) -> Ranked:
        exact = partial(self.similarities, query)
        if len(rows) <= FEW_ROWS:
            return self._best(query, rows, count)
        position = self._position[rows]
        ids = self._ids[rows[position == _IN_IVF]]

        def scan(wanted: int) -> Ranked:  # twice as many, since products of 8-bit numbers tell less apart
            found, products = self._ivf.search_among(query, min(2 * wanted, len(ids)), ids)
            return self._rows_of(found), products

        error = rounding(query) + (HALF_NORM + self._ivf.error) * float(np.linalg.norm(query))
        found = [exact_nearest(scan, exact, len(ids), count, error)[0]]
        if self._flat is not None:
            found.append(self._rest[self._flat.search(query, count, position[position >= 0])[0]])
        together = np.concatenate(found)
        return best_first(together, exact(together), count)

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order; 0 for a row without a vector."""
        return cosines_of(self.vectors, rows, query)

    def vectors(self, rows: NDArray[np.int64]) -> Floats:
        """Return the vectors of ``rows``, of norm 1, float32 ``[rows, dim]``; zeros for a row without one."""
        position = self._position[rows]
        if (position == _IN_IVF).all():  # most searches: no copy
            return self._stored.of(rows)
        vectors = np.zeros((len(rows), self._ivf.dim), np.float32)
        in_ivf, scanned = position == _IN_IVF, position >= 0
        if in_ivf.any():
            vectors[in_ivf] = self._stored.of(rows[in_ivf])
        vectors[scanned] = self._rest_vectors[position[scanned]]
        return vectors
