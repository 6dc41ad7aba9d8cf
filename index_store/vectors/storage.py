"""Vectors as npy files: float16 ``[rows, dim]``, L2-normalised."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.codecs import all_finite
from index_store.files import FileRecord, corrupt, read_array, write_array
from index_store.vectors.exact import Floats

Vectors = Floats | NDArray[np.float16]
STORED_DTYPE = np.dtype("<f2")
MOST_DIM = 1 << 16
_SIGN_AND_NUMBER = np.int32(0x8FFFE000 - (1 << 32))  # of a float16 that was shifted into an int32
_EXPONENTS_APART = np.float32(2.0**112)  # float32 counts exponents from -127, float16 from -15
_NOT_HALF = np.float32(65_536)  # the first power of two beyond float16


def write_vectors(path: Path, batches: Sequence[Vectors]) -> None:
    """Write the rows of ``batches``, ``[rows, dim]`` each, as one npy file of float16."""
    write_array(path, np.concatenate(batches).astype(STORED_DTYPE))


def read_vectors(path: Path, rows: int, record: FileRecord | None = None) -> NDArray[np.float16]:
    """Read a file of :func:`write_vectors`: float16 ``[rows, dim]``, which may hold NaN; see :func:`finite_rows`.

    Raises:
        IndexCorruptError: not an npy file of that many rows, or not the file of ``record``.
    """
    stored: NDArray[np.float16] = read_array(path, record)
    if stored.dtype != STORED_DTYPE or stored.ndim != 2 or len(stored) != rows or not 0 < stored.shape[1] <= MOST_DIM:
        raise corrupt(path, f"holds {stored.dtype} {stored.shape} instead of {rows} rows of float16")
    return stored


def check_vectors(path: Path, rows: int) -> None:
    """Read a file of :func:`write_vectors`; IndexCorruptError also if a number in it is infinite or NaN."""
    wrong = np.flatnonzero(~finite_rows(read_vectors(path, rows)))
    if len(wrong):
        raise corrupt(path, f"holds numbers that are infinite or NaN in {len(wrong)} rows, the first is {wrong[0]}")


def finite_rows(vectors: Vectors) -> NDArray[np.bool_]:
    """Say of every vector of ``[rows, dim]`` whether all its numbers are finite: searches find no others."""
    if all_finite(vectors):  # ten times as fast as row by row
        return np.ones(len(vectors), dtype=bool)
    finite: NDArray[np.bool_] = np.all(np.isfinite(vectors), axis=1)
    return finite


def widened(stored: NDArray[np.float16]) -> Floats:
    """Return finite float16 vectors as float32, the same numbers; infinities and NaN get magnitudes of 65536 and more.

    numpy converts number by number, and so does FAISS; shifts of whole arrays take a third of the time.
    """
    bits = stored.view(np.int16).astype(np.int32)
    bits <<= 13  # the fraction's place in float32; what follows takes away copies of the sign
    bits &= _SIGN_AND_NUMBER
    vectors: Floats = bits.view(np.float32)
    vectors *= _EXPONENTS_APART
    return vectors


def normalised(stored: Vectors) -> Floats:
    """Return stored vectors ``[rows, dim]`` as float32 with norm 1 again, after the rounding; zeros stay zeros."""
    half = stored.dtype == STORED_DTYPE
    vectors: Floats = widened(stored.view(STORED_DTYPE)) if half else stored.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite stay so, and are never found
        squares: Floats = np.einsum("rd,rd->r", vectors, vectors)
        if half and (squares >= _NOT_HALF**2).any():
            vectors = stored.astype(np.float32)
            squares = np.einsum("rd,rd->r", vectors, vectors)
        vectors *= (1 / np.maximum(np.sqrt(squares), np.finfo(np.float32).tiny))[:, None]
    return vectors
