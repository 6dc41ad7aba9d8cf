"""Compare rankings whose equal scores may stand in any order: the last bits of a score depend on the processor."""

from collections.abc import Iterable
from typing import Protocol


class Ranked(Protocol):
    """A result of a search: what it found, and the score that its place follows."""

    @property
    def id(self) -> int: ...
    @property
    def shown_score(self) -> float: ...


Ranking = Iterable[tuple[int, float] | Ranked]


def assert_same_ranking(found: Ranking, expected: Ranking, atol: float = 1e-6, *, whole: bool = False) -> None:
    """Fail unless rounding of at most ``atol`` a score can turn one ranking into the other.

    The scores agree position by position, and those of every id agree. So ids change places only if their scores are
    equal within the rounding of both. An id of one ranking alone must stand where the other ends: there the list may
    have been cut within a group of equal scores.

    Args:
        found: pairs of id and score, or results of a search, in order.
        expected: the same.
        atol: the largest difference between two scores that count as equal.
        whole: the rankings hold every item, so that nothing was cut off and both must hold the same ids.
    """
    mine, theirs = _pairs(found), _pairs(expected)
    assert len(mine) == len(theirs), f"{len(mine)} results, expected {len(theirs)}"
    by_id, expected_by_id = dict(mine), dict(theirs)
    assert len(by_id) == len(mine), "an id stands twice in the ranking that was found"
    assert len(expected_by_id) == len(theirs), "an id stands twice in the ranking that was expected"
    for place, ((_, score), (_, wanted)) in enumerate(zip(mine, theirs, strict=True), 1):
        assert abs(score - wanted) <= atol, f"place {place} scores {score!r}, expected {wanted!r}"
    for number in by_id.keys() & expected_by_id.keys():
        score, wanted = by_id[number], expected_by_id[number]
        assert abs(score - wanted) <= atol, f"id {number} scores {score!r}, expected {wanted!r}"
    _check_the_end(by_id, expected_by_id, "was not expected", atol, whole)
    _check_the_end(expected_by_id, by_id, "is missing", atol, whole)


def _pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return [each if isinstance(each, tuple) else (each.id, each.shown_score) for each in ranking]


def _check_the_end(own: dict[int, float], other: dict[int, float], problem: str, atol: float, whole: bool) -> None:
    """Check every id that the other ranking does not hold against the score with which the other ends."""
    for number in own.keys() - other.keys():
        last = list(other.values())[-1]
        assert not whole, f"id {number} {problem}"
        assert abs(own[number] - last) <= atol, (
            f"id {number} {problem}, with {own[number]!r}; the other ends at {last!r}"
        )
