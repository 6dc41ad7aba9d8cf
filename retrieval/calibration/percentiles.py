"""From scores to percentiles among random pairs, and back.

Inside the sample a percentile is a share of its pairs. The highest scores are too few to count, so a generalised Pareto
distribution is fitted to the top of the sample by probability-weighted moments (Hosking and Wallis, 1987). It reaches
ten times beyond the sample and no further: a rarer score has the percentile of that edge.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

TAIL_SHARE = 0.05  # of the pairs, the highest, that the tail is fitted to
LEAST_TAIL = 40  # pairs in a fitted tail; a smaller sample is only counted
BEYOND = 10  # an estimate reaches so many times beyond the sample
_MOST_SHAPE = 0.5  # of the fitted tail, either way: a few copies among the pairs must not decide it


class Percentiles:
    """The scores of random pairs of one mode, sorted, and the shares that they give."""

    def __init__(self, scores: Sequence[float] | NDArray[np.float64]) -> None:
        """Take the scores of random pairs, at least one, in any order."""
        self._sorted = np.sort(np.asarray(scores, np.float64))

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return len(self._sorted)

    @property
    def rarest(self) -> float:
        """The smallest share that is told: one in ten times as many pairs as there are, or as counts without a tail."""
        return 1 / (BEYOND * self.pairs) if self._tail is not None else 1 / self.pairs

    @property
    def most(self) -> float:
        """The highest percentile that is told."""
        return 100 * (1 - self.rarest)

    def shares(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the share of random pairs that score at least so much; never below :attr:`rarest`."""
        asked = np.asarray(scores, np.float64)
        above = self.pairs - np.searchsorted(self._sorted, asked, "left")
        equal = np.searchsorted(self._sorted, asked, "right") - np.searchsorted(self._sorted, asked, "left")
        found = (above - equal / 2) / self.pairs  # half of equal scores, so that percentiles of random pairs are even
        if self._tail is not None:
            found = np.where(asked > self._tail.start, self._tail.share(asked), found)
        return np.clip(found, self.rarest, 1.0)

    def percentiles(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the percentile of each score, 0 to :attr:`most`: how many of 100 random pairs score less."""
        return 100 * (1 - self.shares(scores))

    def score_at(self, percentile: float) -> float:
        """Return the least score of a percentile from 0 to 100, to 1e-6: the inverse of :meth:`percentiles`."""
        low, high = float(self._sorted[0]), 1.0
        while high - low > 1e-7:
            middle = (low + high) / 2
            low, high = (low, middle) if float(self.percentiles(middle)) >= percentile else (middle, high)
        return high

    @cached_property
    def _tail(self) -> "_Tail | None":
        count = round(TAIL_SHARE * self.pairs)
        if count < LEAST_TAIL:
            return None
        start = float(self._sorted[-count - 1])
        beyond = self._sorted[self._sorted > start] - start
        return _Tail.fit(start, beyond, len(beyond) / self.pairs) if len(beyond) >= LEAST_TAIL else None


class _Tail:
    """A generalised Pareto distribution above ``start``."""

    def __init__(self, start: float, share: float, scale: float, shape: float) -> None:
        self.start, self._share, self._scale, self._shape = start, share, scale, shape

    @classmethod
    def fit(cls, start: float, beyond: NDArray[np.float64], share: float) -> "_Tail":
        """Fit to ``beyond``: by how much the highest scores, ascending, pass ``start``; they are ``share`` of all."""
        ranks = (np.arange(1, len(beyond) + 1) - 0.35) / len(beyond)
        mean, weighed = float(beyond.mean()), float((beyond * (1 - ranks)).mean())
        shape = 2 - mean / max(mean - 2 * weighed, 1e-12)
        shape = min(max(shape, -_MOST_SHAPE), _MOST_SHAPE)
        return cls(start, share, mean * (1 - shape), shape)

    def share(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of all pairs that score at least so much, for scores above the start."""
        beyond = np.maximum(scores - self.start, 0) / self._scale
        if abs(self._shape) < 1e-6:
            return np.asarray(self._share * np.exp(-beyond))
        base = np.maximum(1 + self._shape * beyond, 0)
        with np.errstate(divide="ignore"):
            return np.asarray(self._share * np.power(base, -1 / self._shape))


def one_in(share: float) -> int:
    """Return N of "one in N random pairs scores at least so much", rounded to two digits."""
    count = 1 / share
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return max(1, round(count / step) * step)
