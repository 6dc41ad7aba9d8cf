"""From scores to percentiles among random pairs, and back.

A percentile is a share of the pairs that were scored, so it ends where one pair is left: one in as many as there are.
A tail fitted to the highest scores erred more, by a factor of two to three, than this count.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

KNOTS = (*np.arange(0.01, 0.99, 0.02), 0.99, 0.995, 0.998)  # shares of the pairs between which evidence is linear
DECIMALS = 9  # of the scores at knots
LEAST_ABOVE = 4  # pairs above the last knot


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
    def most(self) -> float:
        """The highest percentile that is told: that of the highest of all pairs."""
        return 100 * (1 - 1 / self.pairs)

    def shares(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the share of random pairs that score at least so much; equal scores count half, and one pair counts.

        So percentiles of other random pairs are even, from 0 to :attr:`most`.
        """
        asked = np.asarray(scores, np.float64)
        below, not_above = (np.searchsorted(self._sorted, asked, side) for side in ("left", "right"))
        found: NDArray[np.float64] = 1 - (below + not_above) / (2 * self.pairs)
        return np.clip(found, 1 / self.pairs, 1.0)

    def percentiles(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the percentile of each score: how many of 100 random pairs score less."""
        return 100 * (1 - self.shares(scores))

    def score_at(self, percentile: float) -> float:
        """Return the score that so many of 100 random pairs lie below."""
        return float(np.quantile(self._sorted, percentile / 100))

    def evidence(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the normal quantile of each score's percentile, as a smooth rising function.

        0 is a score like half of all random pairs, about 3 is one in a thousand. Beyond the outer knots it rises as
        between the last ones, so that the highest scores keep their order.
        """
        at, values = self._knots
        asked = np.asarray(scores, np.float64)
        low, high = ((values[i + 1] - values[i]) / (at[i + 1] - at[i]) for i in (0, len(at) - 2))
        inside = np.interp(asked, at, values)
        return np.asarray(inside + np.minimum(asked - at[0], 0) * low + np.maximum(asked - at[-1], 0) * high)

    @cached_property
    def _knots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scores, rising, and their normal quantiles; two at least."""
        shares = np.array([share for share in KNOTS if (1 - share) * self.pairs >= LEAST_ABOVE] or [0.5])
        # Scores nearer to each other than rounding is would make a slope that no number holds.
        at, first = np.unique(np.round(np.quantile(self._sorted, shares), DECIMALS), return_index=True)
        values = np.array([NormalDist().inv_cdf(float(share)) for share in shares[first]])
        if len(at) < 2:  # all pairs score alike
            return np.array([at[0], at[0] + 1.0]), np.array([values[0], values[0] + 1.0])
        return at, values


def one_in(share: float) -> int:
    """Return N of "one in N random pairs scores at least so much", rounded to two digits."""
    count = 1 / share
    step = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return max(1, round(count / step) * step)
