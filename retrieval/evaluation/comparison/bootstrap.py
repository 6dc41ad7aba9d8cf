"""Intervals of means by a bootstrap over groups: queries of one group resemble each other, so groups are drawn whole.

All functions are pure: the same totals and seed give the same interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS, SEED = 2000, 0
LOW, HIGH = 2.5, 97.5  # percentiles of a 95 % interval
LEAST_GROUPS = 2  # a single group says nothing about other groups


@dataclass(frozen=True)
class BoundedMean:
    """A mean with its 95 % interval; ``low`` and ``high`` are None where a set has a single group."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GroupTotals:
    """The values of one set's queries, added up by group."""

    counts: Sequence[int]  # queries of each group, 1 or more
    sums: Sequence[float]  # of their values


def total_by_group(groups: Sequence[str], values: Sequence[float]) -> GroupTotals:
    """Add up the values of queries by group, in the order in which groups first appear."""
    rows: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        rows.setdefault(group, []).append(value)
    return GroupTotals([len(row) for row in rows.values()], [float(np.sum(row)) for row in rows.values()])


def resampled_means(totals: GroupTotals, draws: int, chance: np.random.Generator) -> NDArray[np.float64]:
    """Return means over queries ``[draws]``, float64, each of as many groups as there are, drawn with replacement."""
    counts, sums = np.asarray(totals.counts, np.float64), np.asarray(totals.sums, np.float64)
    times = chance.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)
    means: NDArray[np.float64] = (times @ sums) / (times @ counts)
    return means


def mean_of_sets(sets: Sequence[GroupTotals], draws: int = DRAWS, seed: int = SEED) -> BoundedMean:
    """Return the mean, over sets of equal weight, of each set's mean over queries, with its percentile interval.

    Groups are resampled within their own set. The same ``seed`` draws the same groups for other values of the same
    queries, so the mean of differences has a paired interval.
    """
    value = float(np.mean([np.sum(totals.sums) / np.sum(totals.counts) for totals in sets]))
    if min(len(totals.counts) for totals in sets) < LEAST_GROUPS:
        return BoundedMean(value, None, None)
    means = [
        resampled_means(totals, draws, np.random.default_rng([seed, number])) for number, totals in enumerate(sets)
    ]
    low, high = np.percentile(np.stack(means).mean(axis=0), [LOW, HIGH])
    return BoundedMean(value, float(low), float(high))


def differences(first: GroupTotals, second: GroupTotals) -> GroupTotals:
    """Return the totals of ``first`` minus ``second``, value by value of the same queries."""
    return GroupTotals(first.counts, [a - b for a, b in zip(first.sums, second.sums, strict=True)])
