"""The helper that compares rankings: it forgives rounding, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.results import Result
from tests.support.ranking import assert_same_ranking

EXPECTED = [(7, 0.9), (8, 0.5), (9, 0.4999995), (2, 0.1)]


def result(number: int, score: float | None, coarse: float | None = None) -> Result:
    return Result(rank=1, id=number, path=f"{number}.png", score=score, coarse_score=coarse, coarse_rank=None)


@pytest.mark.parametrize(
    "found",
    [
        EXPECTED,
        [(7, 0.9000005), *EXPECTED[1:]],
        [(7, 0.9), (9, 0.4999999), (8, 0.4999998), (2, 0.1)],
        [*EXPECTED[:3], (3, 0.1000005)],
    ],
    ids=["the same", "a rounded score", "equal scores change places", "another of equal scores at the end"],
)
def test_rounding_is_forgiven(found: list[tuple[int, float]]) -> None:
    assert_same_ranking(found, EXPECTED)
    assert_same_ranking(EXPECTED, found)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(8, 0.9), (7, 0.5), *EXPECTED[2:]], "id 7 scores 0.5, expected 0.9|id 8 scores 0.9"),
        ([*EXPECTED[:3], (2, 0.2)], "place 4 scores 0.2, expected 0.1"),
        ([(6, 0.9), *EXPECTED[1:]], "id 6 was not expected, with 0.9; the other ends at 0.1"),
        ([*EXPECTED[:3], (7, 0.1)], "an id stands twice in the ranking that was found"),
        (EXPECTED[:3], "3 results, expected 4"),
        ([], "0 results"),
        ([(7, float("nan")), *EXPECTED[1:]], "place 1 scores nan"),
    ],
)
def test_a_real_difference_fails(found: list[tuple[int, float]], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_same_ranking(found, EXPECTED)
    with pytest.raises(AssertionError):
        assert_same_ranking(EXPECTED, found)


def test_of_a_whole_ranking_nothing_was_cut_off() -> None:
    found = [*EXPECTED[:3], (3, 0.1)]
    assert_same_ranking(found, EXPECTED)
    with pytest.raises(AssertionError, match="id 3 was not expected"):
        assert_same_ranking(found, EXPECTED, whole=True)


def test_the_tolerance_is_the_callers() -> None:
    found = [(7, 0.901), *EXPECTED[1:]]
    assert_same_ranking(found, EXPECTED, atol=2e-3)
    with pytest.raises(AssertionError):
        assert_same_ranking(found, EXPECTED)


def test_results_of_a_search_are_compared_by_the_score_that_is_shown() -> None:
    exact = [result(7, 0.9), result(8, 0.5)]
    assert_same_ranking(exact, [(7, 0.9), (8, 0.5)])
    assert_same_ranking([result(7, None, 0.9), result(8, None, 0.5)], exact)
    with pytest.raises(AssertionError):
        assert_same_ranking([result(7, None, 0.9), result(8, None, 0.6)], exact)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 2**32 - 1), st.data())
def test_whatever_rounding_does_is_forgiven(steps: list[int], seed: int, data: st.DataObject) -> None:
    """Scores that stand close together, each rounded by up to the tolerance, sorted again and cut off."""
    atol = 1e-6
    scores = np.asarray(steps) * atol / 3
    rounded = scores + np.random.default_rng(seed).uniform(-0.99 * atol, 0.99 * atol, len(scores))
    kept = data.draw(st.integers(1, len(scores)))

    def ranking(of: np.ndarray) -> list[tuple[int, float]]:
        return [(int(number), float(of[number])) for number in np.argsort(-of, kind="stable")[:kept]]

    assert_same_ranking(ranking(rounded), ranking(scores), atol)


@given(st.integers(0, 3), st.floats(2e-6, 1))
def test_whatever_is_more_than_rounding_fails(place: int, change: float) -> None:
    found = [(number, score + change * (at == place)) for at, (number, score) in enumerate(EXPECTED)]
    with pytest.raises(AssertionError):
        assert_same_ranking(found, EXPECTED)
