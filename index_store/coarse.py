"""Vectors, and the FAISS index over them.

Vectors are stored as float16 ``[rows, dim]``, one npy file a segment and encoder, rows as in the catalogue. Up to
:data:`index_store.trained.TRAINED_FROM` rows FAISS scans them exactly, in memory, as float32; above it, what was
trained is memory-mapped and only what is new since is scanned.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.durable import corrupt, decode_or_corrupt, writing
from index_store.errors import DiffSimError

Floats = NDArray[np.float32]
Vectors = Floats | NDArray[np.float16]
STORED = np.dtype("<f2")


def write_vectors(path: Path, batches: Sequence[Vectors]) -> None:
    """Write the rows of ``batches`` as one npy file, float16."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_array(path, np.concatenate(batches).astype(STORED))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one npy file; a full disk is a NoSpaceError."""
    buffer = io.BytesIO()  # np.save to a file does not say why a write failed
    np.save(buffer, array)
    with writing(path), buffer.getbuffer() as data:
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


def best_first(rows: NDArray[np.int64], similarities: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the ``count`` likest rows and their cosines; ties by row, lowest first."""
    order = np.lexsort((rows, -similarities))[:count]
    return rows[order], similarities[order]


class CoarseIndex:
    """Exact nearest neighbours by inner product over one encoder's vectors; safe to search from many threads."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors
        faiss = import_faiss()
        self._faiss = faiss.IndexFlatIP(vectors.shape[1])
        self._faiss.add(np.ascontiguousarray(vectors))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self._vectors.shape[1])

    def search(self, query: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; ties by row, lowest first."""
        count = min(count, len(self))
        rows = self._faiss.search(query[None], count)[1][0].astype(np.int64)
        return best_first(rows, self.similarities(query, rows), count)

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order."""
        return cosines(self._vectors[rows], query)
