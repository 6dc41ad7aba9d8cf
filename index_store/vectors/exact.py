"""Exact nearest neighbours: float32 cosines of stored vectors, computed in blocks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ranked = tuple[NDArray[np.int64], Floats]
"""Rows, and the cosine or product of each."""
Rows = NDArray[np.int64]
BLOCK_NUMBERS = 1 << 18  # of vectors that are compared at a time: a megabyte stays in a processor's cache
FEW_ROWS = 1024  # allowed rows up to here are compared one by one, which is quicker than a scan that passes others over
BITS_AN_ID, FEW_BITS = 512, 1 << 23  # a selector of bits may take so many an id, and so many in any case


def cosines(vectors: Floats, query: Floats) -> Floats:
    """Return the cosine of ``query [dim]`` with every row of ``vectors [rows, dim]``, all of norm 1."""
    # Not a matrix product: its rounding depends on a row's position, so that duplicates would get different cosines.
    found: Floats = np.einsum("rd,d->r", vectors, query)
    return found


def cosines_of(read: Callable[[NDArray[np.int64]], Floats], rows: NDArray[np.int64], query: Floats) -> Floats:
    """Return the cosines of ``query [dim]`` with ``rows``; ``read`` returns vectors of norm 1, a block at a time."""
    found, block = np.empty(len(rows), np.float32), max(1, BLOCK_NUMBERS // len(query))
    for start in range(0, len(rows), block):
        found[start : start + block] = cosines(read(rows[start : start + block]), query)
    return found


def best_first(rows: NDArray[np.int64], similarities: Floats, count: int) -> Ranked:
    """Return the ``count`` most similar rows and their cosines; the lowest row first among equals."""
    order = np.lexsort((rows, -similarities))[:count]
    return rows[order], similarities[order]


def selector_of(faiss: Any, ids: Rows, most: int) -> Any:
    """Return FAISS's selector of ``ids``, all below ``most``: bits where these are few enough, else a set."""
    if most > BITS_AN_ID * len(ids) + FEW_BITS:
        return faiss.IDSelectorBatch(ids)
    mask = np.zeros(most, bool)
    mask[ids] = True
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def rounding(query: Floats) -> float:
    """Return the largest possible difference of two float32 cosines of the same vector with ``query [dim]``.

    A sum of ``dim`` products has an error of at most ``dim u`` with u = 2^-24, in any order of summation (Higham,
    Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). There are two such sums and two norms, each with
    half that error; the 8 stands for the few single roundings beside them.
    """
    return 3 * (len(query) + 8) * 2.0**-24 * float(np.linalg.norm(query))


def with_spare(count: int) -> int:
    """Return how many rows to fetch by approximate products so that the ``count`` best are most likely among them."""
    return count + max(16, count // 12)


def exact_nearest(
    approximate: Callable[[int], Ranked],
    exact: Callable[[NDArray[np.int64]], Floats],
    rows: int,
    count: int,
    error: float,
) -> Ranked:
    """Return the ``count`` most similar of all ``rows`` and their cosines, best first, the lowest row among equals.

    Fast products differ from exact cosines by at most ``error``. We fetch k + max(16, k/12) rows by product, rescore
    them exactly, and stop once the worst product is more than ``error`` below the k-th cosine: then no other row can
    belong to the result, nor tie with it. Otherwise, as with many duplicates, we fetch four times as many.

    Args:
        approximate: returns that many rows with the largest products, in any order; fewer where products are NaN.
        exact: returns the cosines of rows.
        rows: how many rows have a vector.
        count: k, how many rows are wanted.
        error: see :func:`rounding`.
    """
    count = min(count, rows)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    fetched = min(rows, with_spare(count))
    while True:
        found, products = approximate(fetched)
        best, similarities = best_first(found, exact(found), count)
        if fetched == rows or (len(best) and float(products.min()) + error < float(similarities[-1])):
            return best, similarities
        fetched = min(rows, 4 * fetched)
