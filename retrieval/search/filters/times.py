"""Points in time as people write them: a date, a date with a time, or an age."""

import re
from datetime import UTC, date, datetime, time, timedelta

from retrieval.errors import UsageError

_UNITS = {"min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}  # seconds
_AGE = re.compile(rf"([0-9]{{1,6}}) *({'|'.join(_UNITS)})")


def point_in_time(given: str | date, now: datetime | None = None) -> datetime:
    """Return the time that ``given`` means, with a timezone.

    Args:
        given: ``2026-01-31`` (its first moment here), ``2026-01-31T18:00+01:00``, or an age such as ``7d``; or the
            same as an object. Without a timezone it is local time.
        now: ages count from here; None: the present.

    Raises:
        UsageError: a text of another form, or a time that no calendar has.
    """
    if isinstance(given, str):
        return _read(given.strip(), now or datetime.now(UTC))
    return _local(given if isinstance(given, datetime) else datetime.combine(given, time()))


def _read(text: str, now: datetime) -> datetime:
    age = _AGE.fullmatch(text)
    try:
        if age is not None:
            return now - timedelta(seconds=int(age[1]) * _UNITS[age[2]])
        return _local(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{text}' is neither a date nor an age; write it like 2026-01-31, 2026-01-31T18:00, 7d or 12h "
            f"(units: {', '.join(_UNITS)})"
        ) from error


def _local(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.astimezone()
