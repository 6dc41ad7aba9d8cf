"""Find the rows of an index that pass a filter; exact, and before any vector is compared."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import absolute_uri, composed, uri_of
from index_store.reader import IndexReader
from retrieval.errors import UsageError
from retrieval.images.shards.naming import prefixes_below
from retrieval.search.filters.filter import Filter

REMEMBERED = 16  # filters of an engine whose rows are kept: a program often asks many questions with one
_EPOCH, _NS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

Mask = NDArray[np.bool_]


class FilterRows:
    """Answers which rows of one opened index pass a filter, and remembers it; safe in many threads."""

    def __init__(self, reader: IndexReader) -> None:
        """Take an index; nothing is read yet."""
        self._reader = reader
        self._known: OrderedDict[tuple[Filter, Any], NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, wanted: Filter) -> NDArray[np.int64]:
        """Return the rows that pass, ascending.

        Raises:
            UsageError: an unknown source, a table of metadata that can't be used, or a condition that doesn't fit it.
            DependencyError: there is a condition, and DuckDB is not installed.
        """
        key = wanted, _state_of(wanted.metadata)
        with self._lock:
            if key not in self._known:
                self._known[key] = np.flatnonzero(self._mask(wanted))
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    def _mask(self, wanted: Filter) -> Mask:
        """Return which rows pass; parts that read all paths come last and see the rows that are left."""
        texts, mask = wanted.texts, np.ones(len(self._reader), bool)
        if texts["source"]:
            ids = self._reader.catalog.source_ids
            mask &= np.isin(ids, [self._source(name) for name in texts["source"]])
        mask &= _between(self._reader.file_states()[1], *wanted.times)
        if texts["under"] or texts["glob"]:
            rows = np.flatnonzero(mask)
            uris = [composed(uri) for uri in self._reader.uris(rows)]
            mask[rows] &= _below(uris, texts["under"]) & _fitting(uris, texts["glob"])
        if wanted.where is not None and wanted.metadata is not None:
            from retrieval.search.filters.metadata import passing  # with pyarrow's readers and functions

            mask &= passing(self._reader, str(wanted.metadata), wanted.where)
        return mask

    def _source(self, name: str) -> int:
        sources = self._reader.sources
        folders = {source.id: sources.folders[source.id] for source in sources.all if not source.dropped}
        path, end = absolute_uri(name), os.sep + uri_of(name).strip(os.sep)
        fits = [number for number, folder in folders.items() if folder == path]
        fits = fits or [number for number, folder in folders.items() if folder.endswith(end)]
        if len(fits) != 1:
            which = "fits several sources" if fits else "is not a source"
            raise UsageError(f"{name} {which} of this index; it has: {', '.join(folders.values()) or 'none'}")
        return fits[0]


def _between(modified: NDArray[np.int64], newer: datetime | None, older: datetime | None) -> Mask:
    """Say which times of modification, in ns, lie at or after ``newer`` and before ``older``; unknown ones don't."""
    mask = np.ones(len(modified), bool)
    if newer is not None or older is not None:
        mask &= modified >= 0
    if newer is not None:
        mask &= modified >= _in_ns(newer)
    if older is not None:
        mask &= modified < _in_ns(older)
    return mask


def _in_ns(moment: datetime) -> int:
    return (moment - _EPOCH) // _NS * 1000


def _below(uris: Sequence[str], folders: Sequence[str]) -> Mask:
    """Say which paths lie below one of ``folders``, which may be shards; none of these means all."""
    starts = tuple(composed(start) for name in folders for start in prefixes_below(absolute_uri(uri_of(name))))
    return np.array([not starts or uri.startswith(starts) for uri in uris], bool)


def _fitting(uris: Sequence[str], patterns: Sequence[str]) -> Mask:
    """Say which paths end in something that fits one of ``patterns``; none of these means all."""
    whole = [composed(uri_of(pattern)) for pattern in patterns]
    whole = [pattern if os.path.isabs(pattern) else f"*{os.sep}{pattern}" for pattern in whole]
    return np.array([not whole or any(fnmatchcase(uri, pattern) for pattern in whole) for uri in uris], bool)


def _state_of(path: Any) -> tuple[int, int] | None:
    """Return the size and time of a table's file, which say whether it was written again; None without a file."""
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_size, found.st_mtime_ns)
