"""Vectors, and the FAISS index over them.

Vectors are stored as float16 ``[rows, dim]``, one npy file a segment and encoder, rows as in the catalogue. Up to
:data:`index_store.vectors.ivf.IVF_FROM_ROWS` rows FAISS scans them exactly, in memory, as float32; above it, what was
trained is memory-mapped and only what is new since is scanned.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.errors import DiffSimError
from index_store.vectors.exact import Floats, Ranked, cosines_of, exact_nearest, rounding


def import_faiss() -> Any:
    """Import FAISS; where that can't be, the error says what to install."""
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
        """Take the vectors ``[rows, dim]`` of norm 1, and which rows have one: no search finds the others."""
        self._vectors = vectors
        self._rows = None if held is None or held.all() else np.flatnonzero(held)  # None: every one has a vector
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
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; ties by row, lowest first."""
        scan, exactly = partial(self._scan, query), partial(self.similarities, query)
        return exact_nearest(scan, exactly, self._faiss.ntotal, count, rounding(query))

    def _scan(self, query: Floats, count: int) -> Ranked:
        products, places = self._faiss.search(query[None], count)
        return places[0].astype(np.int64) if self._rows is None else self._rows[places[0]], products[0]

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order; 0 for one without a vector."""
        return cosines_of(self._vectors.__getitem__, rows, query)
