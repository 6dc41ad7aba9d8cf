"""Vectors, and the FAISS index over them.

Vectors are stored as float16 ``[rows, dim]``, one npy file a segment and encoder, rows as in the catalogue. Up to
:data:`index_store.trained.TRAINED_FROM` rows FAISS scans them exactly, in memory, as float32; above it, what was
trained is memory-mapped and only what is new since is scanned.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.durable import corrupt, decode_or_corrupt, writing
from index_store.errors import DiffSimError

Floats = NDArray[np.float32]
Vectors = Floats | NDArray[np.float16]
STORED = np.dtype("<f2")
Ranked = tuple[NDArray[np.int64], Floats]
"""Rows, and a number of each."""

_SPARE = 16  # rows compared beyond those wanted, and an eighth of these
_BLOCK = 16_384  # vectors compared at a time


def write_vectors(path: Path, batches: Sequence[Vectors]) -> None:
    """Write the rows of ``batches`` as one npy file, float16."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_array(path, np.concatenate(batches).astype(STORED))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one npy file; a full disk is a NoSpaceError."""
    buffer = io.BytesIO()  # np.save to a file does not say why a write failed
    np.save(buffer, array)
    data = buffer.getvalue()  # not getbuffer: Python 3.13 complains of a view that a failed write leaves behind
    with writing(path):
        path.write_bytes(data)


def read_vectors(path: Path, rows: int) -> NDArray[np.float16]:
    """Read one file written by :func:`write_vectors`: float16 ``[rows, dim]``.

    Raises:
        IndexCorruptError: not an npy file of that many rows.
    """
    stored: NDArray[np.float16] = read_array(path)
    if stored.dtype != STORED or stored.ndim != 2 or len(stored) != rows:
        raise corrupt(path, f"holds {stored.dtype} {stored.shape} instead of {rows} rows of float16")
    return stored


def read_array(path: Path) -> NDArray[Any]:
    """Read one npy file; IndexCorruptError where it is none."""
    array: NDArray[Any] = decode_or_corrupt(
        path, lambda data: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    )
    return array


def normalised(stored: Vectors) -> Floats:
    """Return stored vectors as float32, of norm 1 again after the rounding."""
    vectors: Floats = stored.astype(np.float32)
    norms: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(norms, np.finfo(np.float32).tiny)
    return vectors


def import_faiss() -> Any:
    """Import FAISS; where that can't be, the error says what to install."""
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA libraries raises RuntimeError
        raise DiffSimError(
            f"FAISS can't be imported ({error}); install diffsim-retrieval[cpu] or diffsim-retrieval[gpu], not both"
        ) from error
    return faiss


def cosines(vectors: Floats, query: Floats) -> Floats:
    """Return the cosine of every row of ``vectors``, of norm 1, with ``query [dim]``."""
    # Not a matrix product: that rounds a row by its place among the others, so that copies would differ.
    found: Floats = (vectors * query).sum(axis=1)
    return found


def cosines_of(read: Callable[[NDArray[np.int64]], Floats], rows: NDArray[np.int64], query: Floats) -> Floats:
    """Return the cosines of ``query [dim]`` with ``rows``, whose vectors of norm 1 ``read`` gives block by block."""
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        found[start : start + _BLOCK] = cosines(read(rows[start : start + _BLOCK]), query)
    return found


def best_first(rows: NDArray[np.int64], similarities: Floats, count: int) -> Ranked:
    """Return the ``count`` likest rows and their cosines; ties by row, lowest first."""
    order = np.lexsort((rows, -similarities))[:count]
    return rows[order], similarities[order]


def rounding(query: Floats) -> float:
    """Return how far apart two float32 cosines of the same vector with ``query [dim]`` can be.

    A sum of ``dim`` products is off by ``dim u`` at most, u being 2^-24, whatever the order of summation (Higham,
    Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). There are two such sums, and two norms, each of
    which is off by half of that; the 8 stands for the few single roundings beside them.
    """
    return 3 * (len(query) + 8) * 2.0**-24 * float(np.linalg.norm(query))


def exact_nearest(
    roughly: Callable[[int], Ranked],
    exactly: Callable[[NDArray[np.int64]], Floats],
    rows: int,
    count: int,
    error: float,
) -> Ranked:
    """Return the ``count`` of all ``rows`` rows that are likest and their cosines, best first; ties lowest row first.

    A quick product rounds otherwise than the cosines that decide, so more rows are taken by it than are wanted. Once
    the last of these is below the ``count``-th cosine by more than ``error``, no row that was left can be among the
    best, nor tie with them. Until then, as with many copies of one picture, four times as many are taken.

    Args:
        roughly: the so many largest products and their rows, in any order.
        exactly: the cosines of rows.
        rows: how many there are that have a vector.
        count: how many are wanted.
        error: by how much a product and a cosine can differ; see :func:`rounding`.
    """
    count = min(count, rows)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    taken = min(rows, count + count // 8 + _SPARE)
    while True:
        found, products = roughly(taken)
        best, similarities = best_first(found, exactly(found), count)
        if taken == rows or float(products.min()) + error < float(similarities[-1]):
            return best, similarities
        taken = min(rows, 4 * taken)


class CoarseIndex:
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
