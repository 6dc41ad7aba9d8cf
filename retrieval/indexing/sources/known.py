"""The files that an index knows, beside the files that are there now."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Catalog, Item, Reject, uri_of
from index_store.generation import Generation
from index_store.reader import IndexReader
from index_store.row_locations import batched
from retrieval.errors import ImageError, IndexCorruptError
from retrieval.images.discovery import Listing, absolute_source
from retrieval.images.file_bytes import READ_ERROR, read_bytes
from retrieval.images.file_states import FileState, is_same, is_there
from retrieval.images.shards.naming import prefixes_below
from retrieval.indexing.sources.hashing import ListedFile
from retrieval.indexing.sources.moved_folders import left_behind
from retrieval.indexing.sources.retired import RetiredItems, open_retired
from retrieval.settings import BuildSettings

HANDFUL = 5  # so many files of a source may vanish at once, however few it has, unless it is empty now
ROWS_AT_ONCE = 16  # whose tensors are in memory


class KnownFiles:
    """Sorts the files of a listing into unchanged ones and doubtful ones, and finds the items without a file."""

    def __init__(self, listing: Listing, sources: Sequence[Path], reader: IndexReader, run: BuildSettings) -> None:
        self.reader, self._run = reader, run
        self.rows: Mapping[str, int] = {uri: row for row, uri in enumerate(reader.uris())}
        self.listed = {uri_of(name) for name in listing.names}
        self._hidden = tuple(p for place in listing.unreadable for p in prefixes_below(uri_of(place)))
        self._searched = tuple(p for source in sources for p in prefixes_below(uri_of(absolute_source(source))))
        known = {reject.uri: reject for reject in reader.rejects()}
        self.cleared = tuple(uri for uri in known if self._is_gone(uri))
        self.unchanged = self.rejected_before = 0
        self.doubtful = self._sort(listing, {} if run.retry_rejects else known)
        self._gone = np.array([row for uri, row in self.rows.items() if self._is_gone(uri)], np.int64)

    def _is_gone(self, uri: str) -> bool:
        """Say whether a path lies below a source, is not listed, and could have been seen."""
        return uri not in self.listed and self._could_be_seen(uri)

    def _sort(self, listing: Listing, rejects: Mapping[str, Reject]) -> list[ListedFile]:
        """Count unchanged files and rejects; return every other file."""
        states: list[FileState] = list(zip(*(column.tolist() for column in self.reader.file_states()), strict=True))
        doubtful: list[ListedFile] = []
        for name in listing.names:
            uri, state = uri_of(name), listing.state_of(name)
            row = self.rows.get(uri)
            if row is not None and not self._run.rehash and is_same(state, states[row]):
                self.unchanged += 1
            elif row is None and uri in rejects and _is_still_unusable(name, state, rejects[uri]):
                self.rejected_before += 1
            else:
                doubtful.append(ListedFile(name, uri, state))
        return doubtful

    @property
    def may_have_moved(self) -> bool:
        """Whether there are items without a file, which may have another name now."""
        return bool(len(self._gone))

    @cached_property
    def removed(self) -> Catalog:
        """The removed items that are still on the disk."""
        return self.reader.catalog.removed()

    @cached_property
    def retired(self) -> tuple[RetiredItems, ...]:
        """The items of segments that a compaction has retired."""
        return tuple(open_retired(self.reader, self._run))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of every file whose content the index knows; not needed where no file is doubtful."""
        if not self.doubtful:
            return np.empty(0, np.int64)
        older = [retired.sizes for retired in self.retired]
        return np.concatenate([self.reader.file_states()[0], self.removed.file_states()[0], *older])

    def is_lost(self, item: Item) -> bool:
        """Say whether an item has no file any more: it is not listed below the sources, or not there elsewhere."""
        if _is_in(item.uri, self._searched):
            return self._is_gone(item.uri)
        return not is_there(item.uri)

    def gone_but(self, taken: Collection[int]) -> tuple[list[int], dict[str, int]]:
        """Return the ids of items that are gone, without those ``taken`` to other files, and those not to be believed.

        The second are counts by source, of sources that hold no image now, or lost more than a few and more than half:
        a disk may not be mounted. Their items are not among the first.
        """
        gone = self._gone[~np.isin(self.reader.ids[self._gone], np.array(sorted(taken), np.int64))]
        withheld: dict[str, int] = {}
        if self._run.gone or not len(gone):
            return self.reader.ids[gone].tolist(), withheld
        uris = self.reader.uris(gone)
        kept = np.ones(len(gone), bool)
        for source in self._searched:
            lost = np.array([_is_in(uri, (source,)) for uri in uris], bool)
            if lost.any() and self._seems_unmounted(source, int(lost.sum())):
                withheld[source.rstrip(f"{os.sep}#") or os.sep] = int(lost.sum())
                kept &= ~lost
        return self.reader.ids[gone[kept]].tolist(), withheld

    def left_behind(self, moved: Iterable[Item]) -> list[int]:
        """Return the ids of items whose folder was moved to the sources without them, as the ``moved`` ones show."""
        new = {item.id: item.uri for item in moved}
        uris = list(self.rows)
        rows = np.flatnonzero(np.isin(self.reader.ids, np.array(sorted(new), np.int64)))
        places = {uris[row]: new[int(self.reader.ids[row])] for row in rows.tolist()}
        others = [uri for uri in uris if uri not in places and not _is_in(uri, self._searched)] if places else []
        left = left_behind(places, others, self._could_be_seen)
        return [int(self.reader.ids[self.rows[uri]]) for uri in left]

    def _could_be_seen(self, uri: str) -> bool:
        return _is_in(uri, self._searched) and not _is_in(uri, self._hidden)

    def _seems_unmounted(self, source: str, lost: int) -> bool:
        if lost > HANDFUL and 2 * lost > sum(_is_in(uri, (source,)) for uri in self.rows):
            return True
        return not any(_is_in(uri, (source,)) for uri in self.listed)


def find_lost(known: KnownFiles, items: Sequence[Item], displaced: Collection[int]) -> set[int]:
    """Return the ids of ``items`` that no file holds any more; ``displaced`` are those whose file has other bytes."""
    return {item.id for item in items if item.id in displaced or known.is_lost(item)}


def find_revivable(reader: IndexReader, removed: Catalog, digests: Collection[str]) -> list[Item]:
    """Return the ``removed`` items with the content of ``digests`` whose tensors can still be read.

    A repair removes items whose tensors are damaged; these must be computed again.
    """
    items = removed.items(removed.with_content(digests)) if digests else []
    if not items:
        return []
    ids = {item.id for item in items}
    again = IndexReader(reader.layout.root, with_revived(reader.generation, ids))
    rows = np.flatnonzero(np.isin(again.ids, np.array(sorted(ids), np.int64)))
    whole = {int(number) for some in batched(rows, ROWS_AT_ONCE) for number in again.ids[some][_readable(again, some)]}
    return [item for item in items if item.id in whole]


def with_revived(generation: Generation, ids: Collection[int]) -> Generation:
    """Return ``generation`` with the removed items ``ids`` among its live ones."""
    return replace(generation, tombstones=tuple(number for number in generation.tombstones if number not in ids))


def _readable(reader: IndexReader, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each row whether all its stored tensors can be read, bool ``[len(rows)]``."""
    together = _are_readable(reader, rows)
    if together or len(rows) == 1:
        return np.full(len(rows), together)
    return np.array([_are_readable(reader, rows[at : at + 1]) for at in range(len(rows))], bool)


def _are_readable(reader: IndexReader, rows: NDArray[np.int64]) -> bool:
    try:
        for mode in reader.generation.stored_names:
            held = rows[reader.has_tensors(mode)[rows]]
            if len(held):
                reader.attention(mode, held.tolist())
    except IndexCorruptError:
        return False
    return True


def _is_still_unusable(name: str, state: FileState, reject: Reject) -> bool:
    """Say whether a rejected file is as it was; what a user or a system may mend without a trace is tried again."""
    if state[:2] != (reject.size, reject.mtime_ns):
        return False
    if reject.reason != "permission" and not reject.detail.startswith(READ_ERROR):
        return True
    try:
        read_bytes(Path(name))
    except ImageError as error:
        return (error.reason, error.detail) == (reject.reason, reject.detail)
    return False


def _is_in(uri: str, folders: tuple[str, ...]) -> bool:
    """Whether ``uri`` is one of ``folders``, or lies below one."""
    return os.path.join(uri, "").startswith(folders)
