"""The flat index: FAISS scans all vectors of one encoder, in memory, as float32."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.errors import DiffSimError
from index_store.row_locations import is_among
from index_store.vectors.exact import (
    FEW_ROWS,
    Floats,
    Ranked,
    Rows,
    best_first,
    cosines_of,
    exact_nearest,
    rounding,
    selector_of,
)


def import_faiss() -> Any:
    """Import FAISS; if that fails, the error says which package to install."""
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA libraries raises RuntimeError
        raise DiffSimError(
            f"FAISS can't be imported ({error}); install diffsim-retrieval[cpu] or diffsim-retrieval[gpu], not both"
        ) from error
    return faiss


class FlatIndex:
    """Exact nearest neighbours by inner product over one encoder's vectors; safe to search from many threads."""

    def __init__(self, vectors: Floats, held: NDArray[np.bool_] | None = None) -> None:
        """Take vectors ``[rows, dim]`` of norm 1; ``held [rows]`` says which rows have one, and searches find those."""
        self._vectors = vectors
        self._rows = None if held is None or held.all() else np.flatnonzero(held)  # None: all rows have a vector
        faiss = import_faiss()
        self._faiss = faiss.IndexFlatIP(vectors.shape[1])
        self._faiss.add(np.ascontiguousarray(vectors if self._rows is None else vectors[self._rows]))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self._vectors.shape[1])

    def search(self, query: Floats, count: int, allowed: Rows | None = None) -> Ranked:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; the lowest row among equals.

        Only ``allowed`` rows are found, ascending; None: all. A row whose cosine is not a number is never found.
        """
        exact = partial(self.similarities, query)
        if allowed is None:
            return exact_nearest(partial(self._scan, query), exact, self._faiss.ntotal, count, rounding(query))
        places = allowed if self._rows is None else np.flatnonzero(is_among(self._rows, allowed))
        if len(places) <= FEW_ROWS:
            rows = places if self._rows is None else self._rows[places]
            return best_first(rows, exact(rows), count)
        options = import_faiss().SearchParameters(sel=selector_of(import_faiss(), places, self._faiss.ntotal))
        scan = partial(self._scan, query, options=options)
        return exact_nearest(scan, exact, len(places), count, rounding(query))

    def search_many(self, queries: Floats, count: int) -> Ranked:
        """Return the rows nearest to each of ``queries [queries, dim]`` and their cosines, both ``[queries, count]``.

        Cosines are FAISS's products, so equal ones may come in any order. A place without a row holds -1.
        """
        products, found = self._faiss.search(np.ascontiguousarray(queries), count)
        rows = found.astype(np.int64)
        return (rows if self._rows is None else np.where(rows < 0, -1, self._rows[rows])), products

    def _scan(self, query: Floats, count: int, options: Any = None) -> Ranked:
        products, found = self._faiss.search(query[None], count, params=options)
        there = found[0] >= 0  # FAISS gives -1 in place of a row whose product is not a number
        rows = found[0][there].astype(np.int64)
        return rows if self._rows is None else self._rows[rows], products[0][there]

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order; 0 for a row without a vector."""
        return cosines_of(self.vectors, rows, query)

    def vectors(self, rows: NDArray[np.int64]) -> Floats:
        """Return the vectors of ``rows``, of norm 1, float32 ``[rows, dim]``; zeros for a row without one."""
        return self._vectors[rows]
