"""Screen pairs of near images by small grey squares: which of them are worth a comparison of larger pictures."""

import numpy as np
from numpy.typing import NDArray

from retrieval.grouping.alignment import core_fits, whole_fits
from retrieval.grouping.comparing import CORE_FITS, WHOLE_FITS
from retrieval.grouping.neighbours import Pairs
from retrieval.grouping.pictures import Grey, unit_squares
from retrieval.progress import Cancellation, OnProgress, Progress

PAIRS_AT_ONCE = 512
LEAST_CLOSENESS = 0.3  # of vectors: below that no kind of copy was seen
CUT_CLOSENESS = 0.5  # the same for cuts and borders, whose middle is sought
CUT_RANK = 6  # a cut is among so many nearest neighbours of its whole, or they are of its own cuts


def screened(
    pairs: Pairs,
    squares: NDArray[np.uint8],
    there: NDArray[np.bool_],
    on_progress: OnProgress,
    cancel: Cancellation | None = None,
) -> Pairs:
    """Return the pairs that may be copies.

    Args:
        pairs: of rows.
        squares: of all rows, uint8 ``[rows, S, S]``.
        there: which rows have a square, bool ``[rows]``.
        on_progress: hears of the stage "pairs".
        cancel: ends the work between some pairs and others.
    """
    pairs = pairs.where((pairs.closeness >= LEAST_CLOSENESS) & there[pairs.first] & there[pairs.second])
    kept = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        if cancel is not None:
            cancel.check()
        some = slice(start, start + PAIRS_AT_ONCE)
        first, second = (unit_squares(squares[rows[some]]) for rows in (pairs.first, pairs.second))
        fits = whole_fits(_halved(first), _halved(second))[0] >= WHOLE_FITS
        close = (pairs.closeness[some] >= CUT_CLOSENESS) & (pairs.rank[some] < CUT_RANK) & ~fits
        cut = np.maximum(core_fits(first[close], second[close]), core_fits(second[close], first[close]))
        fits[close] = cut >= CORE_FITS
        kept[some] = fits
        on_progress(Progress("pairs", start + len(fits), len(pairs)))
    return pairs.where(kept)


def _halved(squares: Grey) -> Grey:
    """Return squares of half the side, with length 1."""
    pairs, side = squares.shape[0], squares.shape[1] // 2
    small: Grey = squares.reshape(pairs, side, 2, side, 2).mean(axis=(2, 4))
    lengths = np.linalg.norm(small, axis=(1, 2), keepdims=True)
    halved: Grey = np.where(lengths > 0, small / np.maximum(lengths, 1e-12), 0.0).astype(np.float32)
    return halved
