"""What a search may find: folders, names, dates, sources, and a condition on a table of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, cast

from retrieval.errors import UsageError
from retrieval.search.filters.times import point_in_time

Texts = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The images that may be results: those that pass every part that is given.

    Texts become tuples of str, and points in time a ``datetime`` with a timezone, so that an age counts from here.

    Raises:
        UsageError: an empty name, a time of another form, or a condition without a table or the other way round.
    """

    under: Texts = ()  # folders: the image lies below one of them, at any depth
    glob: Texts = ()  # patterns: the end of its path fits one of them, like ``cats/*.jpg``; * also crosses /
    newer: str | date | None = None  # its file was changed at or after this: a date, or an age such as "7d"
    older: str | date | None = None  # its file was changed before this
    source: Texts = ()  # sources of the index, by their folder or the end of its path
    where: str | None = None  # a condition in SQL on the columns of ``metadata``, like "split = 'train'"
    metadata: str | Path | None = None  # a Parquet or CSV file with a column ``path`` or ``sha256``

    def __post_init__(self) -> None:
        for name in ("under", "glob", "source"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name in ("newer", "older"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else point_in_time(given))
        if self.metadata is not None:
            object.__setattr__(self, "metadata", str(Path(self.metadata).absolute()))
        if (self.where is None) != (self.metadata is None):
            raise UsageError("a condition needs a table of metadata to hold for, and a table needs a condition")

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """The fields ``under``, ``glob`` and ``source``."""
        return {name: cast("tuple[str, ...]", getattr(self, name)) for name in ("under", "glob", "source")}

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        """The fields ``newer`` and ``older``."""
        return cast("tuple[datetime | None, datetime | None]", (self.newer, self.older))

    def about(self) -> dict[str, Any]:
        """Return the parts that are given, as JSON values."""
        newer, older = (None if moment is None else moment.isoformat() for moment in self.times)
        texts = {name: list(values) for name, values in self.texts.items()}
        parts = {**texts, "newer": newer, "older": older, "where": self.where, "metadata": self.metadata}
        return {name: value for name, value in parts.items() if value}


def _texts(name: str, given: Texts) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str | Path) else tuple(given)
    if not all(str(text) for text in texts):
        raise UsageError(f"'{name}' of a filter is empty: name a {'pattern' if name == 'glob' else 'folder'}")
    return tuple(map(str, texts))
