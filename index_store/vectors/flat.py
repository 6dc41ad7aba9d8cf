"""The flat index: FAISS scans all vectors of one encoder, in memory, as float32."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.errors import DiffSimError
from index_store.vectors.exact import Floats, Ranked, cosines_of, exact_nearest, rounding


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

    def search(self, query: Floats, count: int) -> Ranked:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; the lowest row among equals.

        A row whose cosine is not a number is never found.
        """
        scan, exact = partial(self._scan, query), partial(self.similarities, query)
        return exact_nearest(scan, exact, self._faiss.ntotal, count, rounding(query))

    def _scan(self, query: Floats, count: int) -> Ranked:
        products, found = self._faiss.search(query[None], count)
        there = found[0] >= 0  # FAISS gives -1 in place of a row whose product is not a number
        rows = found[0][there].astype(np.int64)
        return rows if self._rows is None else self._rows[rows], products[0][there]

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order; 0 for a row without a vector."""
        return cosines_of(self._vectors.__getitem__, rows, query)
