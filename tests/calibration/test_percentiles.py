"""Percentiles are shares of pairs; evidence rises with the score, also beyond the sample."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval.calibration.percentiles import Percentiles, one_in

SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=300)


def test_a_percentile_counts_pairs() -> None:
    found = Percentiles(np.arange(1000) / 1000)
    assert found.percentiles([0.25, 0.5, 0.9]).tolist() == pytest.approx([25, 50, 90], abs=0.1)
    assert found.shares(0.999) == found.shares(1.0) == pytest.approx(1 / 1000)
    assert found.most == pytest.approx(99.9)
    assert found.percentiles(-1) == 0
    assert found.score_at(50) == pytest.approx(0.5, abs=1e-3)


def test_pairs_of_the_same_kind_have_even_percentiles() -> None:
    random = np.random.default_rng(0)
    known, held = random.beta(2, 8, 4096), np.sort(random.beta(2, 8, 20_000))
    percentiles = Percentiles(known).percentiles(held)
    assert np.abs(percentiles - 100 * np.arange(20_000) / 20_000).max() < 3


@given(SCORES, st.lists(st.floats(-1, 1), min_size=2, max_size=20))
@example([0.0, 1.0, 1.0, 1.0, 2.2250738585e-313], [0.0, 0.0])
@example([0.5, 0.5, 0.5 + 1e-16, 1.0], [-1.0, 1.0])
def test_higher_scores_are_never_less(scores: list[float], asked: list[float]) -> None:
    found, asked = Percentiles(scores), sorted(asked)
    shares = found.shares(asked)
    assert ((shares >= 1 / len(scores)) & (shares <= 1)).all()
    assert (np.diff(shares) <= 0).all()
    evidence = found.evidence(asked)
    assert np.isfinite(evidence).all()
    assert (np.diff(evidence) >= -1e-9).all()


@given(SCORES)
def test_the_order_of_pairs_does_not_matter(scores: list[float]) -> None:
    there, back = Percentiles(scores), Percentiles(scores[::-1])
    assert there.percentiles(scores).tolist() == back.percentiles(scores).tolist()


def test_evidence_is_the_normal_quantile_and_goes_on_beyond_the_sample() -> None:
    found = Percentiles(np.random.default_rng(1).normal(0, 0.1, 4096).clip(-1, 1))
    assert found.evidence([0.0, 0.1, 0.2]).tolist() == pytest.approx([0, 1, 2], abs=0.15)
    beyond = found.evidence([0.4, 0.6, 1.0])
    assert (np.diff(beyond) > 0.5).all()


def test_pairs_that_all_score_alike_have_percentiles_too() -> None:
    found = Percentiles([0.5] * 100)
    assert found.percentiles([0.4, 0.5, 0.6]).tolist() == pytest.approx([0, 50, 99])
    assert (np.diff(found.evidence([0.4, 0.5, 0.6])) > 0).all()


@pytest.mark.parametrize(
    ("share", "count"), [(1.0, 1), (0.5, 2), (1 / 37, 37), (1 / 1234, 1200), (1 / 99_600, 100_000)]
)
def test_one_in_so_many_has_two_digits(share: float, count: int) -> None:
    assert one_in(share) == count
