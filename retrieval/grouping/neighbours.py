"""Pairs of near images, from the nearest neighbours of every image in the coarse index.

Every image asks the coarse index once for each encoder, so the work grows with the number of images times that of one
search. The pairs are candidates only: pixels or exact scores decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from index_store.vectors.exact import Floats
from retrieval.progress import Cancellation, OnProgress, Progress

ROWS_AT_ONCE = 1024  # images that ask together
RANDOM_PAIRS = 4096  # whose cosines tell how close any two images are
SEED = 2334


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, each once, in ascending order."""

    first: NDArray[np.int64]  # [pairs], below ``second``
    second: NDArray[np.int64]
    closeness: Floats  # of the encoder that finds them closest: 0 for a random pair, 1 for equal vectors
    rank: NDArray[np.int64]  # the best rank that one has among the neighbours of the other, from 0

    def __len__(self) -> int:
        return len(self.first)

    def where(self, chosen: NDArray[np.bool_]) -> "Pairs":
        """Return the pairs that are ``chosen``, bool ``[pairs]``."""
        return Pairs(self.first[chosen], self.second[chosen], self.closeness[chosen], self.rank[chosen])


def near_pairs(
    reader: IndexReader,
    encoders: Sequence[str],
    count: int,
    on_progress: OnProgress,
    cancel: Cancellation | None = None,
) -> Pairs:
    """Return every image's ``count`` nearest neighbours by each encoder as pairs.

    Raises:
        IndexCorruptError: a file of vectors is missing or damaged.
        CancelledError: ``cancel`` was requested.
    """
    total, found = len(reader) * len(encoders), list[Pairs]()
    for number, encoder in enumerate(encoders):
        index, rows = reader.coarse_index(encoder), np.flatnonzero(reader.has_vector(encoder))
        typical = typical_cosine(index.vectors, rows)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            if cancel is not None:
                cancel.check()
            asking = rows[start : start + ROWS_AT_ONCE]
            near, cosines = index.search_many(index.vectors(asking), count + 1)
            # FAISS fills empty places with the lowest number there is.
            known = np.where(near < 0, np.float32(-1), cosines)
            closeness = ((known - typical) / (1 - typical)).astype(np.float32)
            found.append(_pairs_of(asking, near, closeness))
            on_progress(Progress("neighbours", number * len(reader) + start + len(asking), total))
        on_progress(Progress("neighbours", (number + 1) * len(reader), total))
    return merged(found, len(reader))


def typical_cosine(read: Callable[[NDArray[np.int64]], Floats], rows: NDArray[np.int64]) -> float:
    """Return the median cosine of random pairs of ``rows``, below 1; 0 for fewer than two.

    Args:
        read: returns the vectors of some rows, of norm 1, float32 ``[rows, dim]``.
        rows: those that have a vector.
    """
    if len(rows) < 2:
        return 0.0
    random = np.random.default_rng(SEED)
    first = random.integers(0, len(rows), RANDOM_PAIRS)
    second = (first + random.integers(1, len(rows), RANDOM_PAIRS)) % len(rows)
    return min(0.999, float(np.median((read(rows[first]) * read(rows[second])).sum(axis=1))))


def _pairs_of(asking: NDArray[np.int64], near: NDArray[np.int64], closeness: Floats) -> Pairs:
    """Return the pairs of ``asking [rows]`` with ``near [rows, count]``, without those with itself and empty places."""
    ranks = np.broadcast_to(np.arange(near.shape[1]), near.shape)
    mine = np.broadcast_to(asking[:, None], near.shape)
    kept = (near >= 0) & (near != mine)
    one, other = mine[kept], near[kept]
    return Pairs(np.minimum(one, other), np.maximum(one, other), closeness[kept], ranks[kept].astype(np.int64))


def merged(parts: Sequence[Pairs], rows: int) -> Pairs:
    """Return the pairs of all parts, each once with its best closeness and rank; ``rows`` is above every row."""
    if not parts:
        nothing = np.empty(0, np.int64)
        return Pairs(nothing, nothing, np.empty(0, np.float32), nothing)
    keys = np.concatenate([part.first * rows + part.second for part in parts])
    unique, place = np.unique(keys, return_inverse=True)
    closeness, rank = np.full(len(unique), -np.inf, np.float32), np.full(len(unique), rows, np.int64)
    np.maximum.at(closeness, place, np.concatenate([part.closeness for part in parts]))
    np.minimum.at(rank, place, np.concatenate([part.rank for part in parts]))
    return Pairs(unique // max(rows, 1), unique % max(rows, 1), closeness, rank)
