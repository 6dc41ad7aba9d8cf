"""Judge a query's ranking by its labels. Equal scores count against the metric, so nothing is gained by them."""

import numpy as np
from numpy.typing import NDArray


def average_precision(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> float:
    """Return the average precision of one query: the mean of the precision at each relevant image's rank.

    Args:
        scores: float64 ``[images]``, higher is closer; ``-inf`` for an image that was not found.
        relevant: bool ``[images]``, at least one True. Of images with equal scores the relevant ones come last.
    """
    order = np.lexsort((relevant, -scores))
    hits = np.flatnonzero(relevant[order])
    return float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))


def preference(nearer: float, farther: float) -> float:
    """Return 1 if the nearer image of a triplet scores higher, 0 if it scores lower, and 1/2 for a tie."""
    return 0.5 if nearer == farther else float(nearer > farther)


def undominated(points: list[tuple[float, float]]) -> list[bool]:
    """Return, for each (quality, cost), whether no other point is at least as good in both and better in one."""
    return [
        not any(q >= quality and c <= cost and (q > quality or c < cost) for q, c in points) for quality, cost in points
    ]
