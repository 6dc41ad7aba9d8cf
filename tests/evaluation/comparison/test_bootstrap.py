"""Bootstrap intervals against every possible resampling, and their coverage on data whose mean is known."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evaluation.comparison.bootstrap import (
    GroupTotals,
    differences,
    mean_of_sets,
    resampled_means,
    total_by_group,
)

TOTALS = GroupTotals([1, 2, 5], [0.9, 0.4, 3.5])


def every_resampling(totals: GroupTotals) -> list[float]:
    """The slow reference: the mean of each of the groups^groups equally likely resamplings."""
    rows = range(len(totals.counts))
    return [
        sum(totals.sums[row] for row in drawn) / sum(totals.counts[row] for row in drawn)
        for drawn in product(rows, repeat=len(rows))
    ]


def test_resampled_means_have_the_distribution_of_all_resamplings() -> None:
    possible = every_resampling(TOTALS)
    found = resampled_means(TOTALS, 40_000, np.random.default_rng(3))
    assert np.abs(found[:, None] - np.array(possible)).min(axis=1).max() < 1e-12
    for value in set(np.round(possible, 9)):
        share = np.mean(np.isclose(possible, value))
        assert np.mean(np.isclose(found, value)) == pytest.approx(share, abs=0.01)


def test_the_interval_is_of_the_percentiles_of_all_resamplings() -> None:
    found = mean_of_sets([TOTALS], draws=40_000)
    assert found.value == pytest.approx(4.8 / 8)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(every_resampling(TOTALS), [2.5, 97.5], method="inverted_cdf")), abs=1e-9
    )


def test_values_are_added_up_by_group() -> None:
    found = total_by_group(["b", "a", "b"], [1.0, 0.25, 0.5])
    assert (list(found.counts), list(found.sums)) == ([2, 1], [1.5, 0.25])


def test_sets_have_equal_weight_whatever_their_size() -> None:
    small, large = GroupTotals([1, 1], [1.0, 1.0]), GroupTotals([50, 50], [0.0, 0.0])
    found = mean_of_sets([small, large])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_single_group_has_no_interval() -> None:
    found = mean_of_sets([TOTALS, GroupTotals([4], [2.0])])
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx((0.6 + 0.5) / 2)


groups = st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=2, max_size=12)


@given(groups, st.floats(-1, 1))
def test_the_difference_is_paired(rows: list[tuple[int, float]], shift: float) -> None:
    """A shift that is the same for every query has an interval without width, however much the queries differ."""
    counts = [count for count, _ in rows]
    first = GroupTotals(counts, [count * value for count, value in rows])
    second = GroupTotals(counts, [count * (value - shift) for count, value in rows])
    found = mean_of_sets([differences(first, second)], draws=200)
    assert (found.value, found.low, found.high) == pytest.approx((shift, shift, shift), abs=1e-9)


@given(groups, st.integers(0, 2**32 - 1))
def test_an_interval_is_a_function_of_totals_and_seed(rows: list[tuple[int, float]], seed: int) -> None:
    totals = GroupTotals([count for count, _ in rows], [count * value for count, value in rows])
    found = mean_of_sets([totals], draws=100, seed=seed)
    assert found == mean_of_sets([totals], draws=100, seed=seed)
    assert found.low is not None
    assert found.high is not None
    least, most = min(value for _, value in rows), max(value for _, value in rows)
    assert least - 1e-9 <= found.low <= found.high <= most + 1e-9


@pytest.mark.thorough
def test_intervals_of_grouped_queries_cover_the_true_mean() -> None:
    """Queries of a group share an effect: groups drawn whole cover as promised, single queries far too seldom."""
    chance = np.random.default_rng(11)
    whole = single = 0
    for _ in range(trials := 250):
        sizes = chance.integers(2, 9, 30)
        values = [0.5 + chance.normal(0, 0.2) + chance.normal(0, 0.1, size) for size in sizes]
        grouped = GroupTotals(sizes.tolist(), [float(each.sum()) for each in values])
        flat = np.concatenate(values)
        alone = GroupTotals([1] * len(flat), flat.tolist())
        for totals, is_whole in ((grouped, True), (alone, False)):
            found = mean_of_sets([totals], draws=300)
            assert found.low is not None
            assert found.high is not None
            covers = found.low <= 0.5 <= found.high
            whole, single = whole + (covers and is_whole), single + (covers and not is_whole)
    assert 0.90 <= whole / trials <= 0.98
    assert single / trials < 0.75
