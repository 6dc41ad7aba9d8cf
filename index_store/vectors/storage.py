"""Vectors as npy files: float16 ``[rows, dim]``, L2-normalised."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.files import corrupt, read_array, write_array, writing
from index_store.vectors.exact import Floats

Vectors = Floats | NDArray[np.float16]
STORED_DTYPE = np.dtype("<f2")


def write_vectors(path: Path, batches: Sequence[Vectors]) -> None:
    """Write the rows of ``batches``, ``[rows, dim]`` each, as one npy file of float16."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_array(path, np.concatenate(batches).astype(STORED_DTYPE))


def read_vectors(path: Path, rows: int) -> NDArray[np.float16]:
    """Read a file of :func:`write_vectors`: float16 ``[rows, dim]``.

    Raises:
        IndexCorruptError: not an npy file of that many rows.
    """
    stored: NDArray[np.float16] = read_array(path)
    if stored.dtype != STORED_DTYPE or stored.ndim != 2 or len(stored) != rows:
        raise corrupt(path, f"holds {stored.dtype} {stored.shape} instead of {rows} rows of float16")
    return stored


def normalised(stored: Vectors) -> Floats:
    """Return stored vectors ``[rows, dim]`` as float32 with norm 1 again, after the rounding; zeros stay zeros."""
    vectors: Floats = stored.astype(np.float32)
    norms: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(norms, np.finfo(np.float32).tiny)
    return vectors
