"""Exact nearest neighbours: float32 cosines over stored vectors, block after block."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ranked = tuple[NDArray[np.int64], Floats]
"""Rows, and a number of each."""
_SPARE = 16  # rows compared beyond those wanted, and an eighth of these
_BLOCK = 16_384  # vectors compared at a time


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
