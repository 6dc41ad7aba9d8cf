"""The graph of nearest neighbours of one mode: edges of the coarse index, with exact scores where there are tensors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.grouping.neighbours import near_pairs
from retrieval.grouping.scores import PairScores
from retrieval.progress import Cancellation, OnProgress, Progress

LEAST_DISTANCE = 1e-6  # of equal images: sparse matrices drop a distance of 0


@dataclass(frozen=True)
class Graph:
    """Edges between rows, each once."""

    first: NDArray[np.int64]  # [edges], below ``second``
    second: NDArray[np.int64]
    scores: NDArray[np.float32]  # exact scores, or cosines of the encoders where there are no tensors
    is_exact: bool

    @property
    def distances(self) -> NDArray[np.float64]:
        """1 less the score, above 0."""
        return np.maximum(1.0 - self.scores.astype(np.float64), LEAST_DISTANCE)


def neighbour_graph(
    reader: IndexReader,
    encoders: tuple[str, ...],
    scores: PairScores | None,
    count: int,
    on_progress: OnProgress,
    cancel: Cancellation | None,
) -> Graph:
    """Join every image with its ``count`` nearest neighbours by each encoder.

    ``scores`` gives the edges exact scores; edges of images without tensors are left out then. None: the edges keep the
    closeness of their vectors.
    """
    pairs = near_pairs(reader, encoders, count, on_progress, cancel)
    if scores is None:
        return Graph(pairs.first, pairs.second, pairs.closeness, False)
    found, starts = np.empty(len(pairs), np.float32), np.flatnonzero(np.diff(pairs.first, prepend=-1))
    for number, start in enumerate(starts.tolist()):
        if cancel is not None:
            cancel.check()
        end = starts[number + 1] if number + 1 < len(starts) else len(pairs)
        found[start:end] = scores.of(int(pairs.first[start]), pairs.second[start:end].tolist())
        on_progress(Progress("edges", int(end), len(pairs)))
    known = np.isfinite(found)
    return Graph(pairs.first[known], pairs.second[known], found[known], True)
