"""Filters as values: times, texts and contradictions."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from retrieval import Filter
from retrieval.errors import UsageError
from retrieval.search.filters.times import point_in_time

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90min", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        (" 7d", timedelta(days=7)),
        ("2 w", timedelta(weeks=2)),
        ("1y", timedelta(days=365)),
        ("0d", timedelta()),
    ],
)
def test_an_age_counts_back_from_now(text: str, age: timedelta) -> None:
    assert point_in_time(text, NOW) == NOW - age


def test_a_date_means_its_first_moment_here() -> None:
    midnight = datetime(2026, 1, 31).astimezone()
    assert point_in_time("2026-01-31") == point_in_time(date(2026, 1, 31)) == midnight
    assert point_in_time("2026-01-31T18:00") == midnight + timedelta(hours=18)
    assert point_in_time("2026-01-31T18:00+00:00") == datetime(2026, 1, 31, 18, tzinfo=UTC)
    assert point_in_time(NOW) is NOW


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7m", "-3d", "2026-13-01", "999999y", "31.01.2026"])
def test_another_text_is_an_error_that_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match="write it like 2026-01-31"):
        point_in_time(text, NOW)


def test_a_filter_is_a_value() -> None:
    one = Filter(under="photos", glob=["*.png", "*.jpg"], newer=NOW)
    other = Filter(under=(Path("photos"),), glob=("*.png", "*.jpg"), newer=NOW)
    assert one == other
    assert len({one, other}) == 1
    assert one.about() == {"under": ["photos"], "glob": ["*.png", "*.jpg"], "newer": NOW.isoformat()}
    assert Filter().about() == {}
    with pytest.raises(AttributeError):
        one.under = ()  # type: ignore[misc]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a table of metadata"):
        Filter(where="stars > 3")
    with pytest.raises(UsageError, match="a table needs a condition"):
        Filter(metadata="stars.csv")
    with pytest.raises(UsageError, match="'glob' of a filter is empty: name a pattern"):
        Filter(glob=["*.png", ""])
