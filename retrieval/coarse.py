"""Fuse the rankings of several encoders into one list of candidates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher, 2009: damps the first ranks so that no encoder decides alone


def fuse_rankings(rankings: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Return the ``count`` best rows by reciprocal rank fusion, ``sum over rankings of 1 / (60 + rank)``.

    Args:
        rankings: rows of each encoder, best first; a row that one of them lacks gets nothing there.
        count: how many rows are wanted.

    Returns:
        int64 ``[min(count, rows in all)]``, best first; ties by row number, lowest first.
    """
    rows = np.unique(np.concatenate(rankings)) if rankings else np.empty(0, np.int64)
    shares = np.zeros((len(rankings), len(rows)))
    for encoder, ranking in enumerate(rankings):
        shares[encoder, np.searchsorted(rows, ranking)] = 1.0 / (RRF_CONSTANT + 1.0 + np.arange(len(ranking)))
    # Sorted before they are added, so that rounding, and with it a tie, does not depend on the order of encoders.
    scores = np.sort(shares, axis=0).sum(axis=0)
    order = np.lexsort((rows, -scores))[:count]
    fused: NDArray[np.int64] = rows[order]
    return fused
