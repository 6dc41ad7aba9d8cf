"""Compare files with an index: which files are new, changed, renamed, touched or gone."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from index_store.catalog import Item, Reject, uri_of
from index_store.locate import is_index, may_become_index, new_index_path
from index_store.reader import IndexReader
from index_store.remote.pull import local_root
from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import FileFacts, read_bytes
from retrieval.images.discovery import IMAGE_SUFFIXES, FileState, Listing, Paths, find_images, state_of
from retrieval.text import counted


@dataclass(frozen=True)
class Changes:
    """The differences between the files and the index."""

    pending: Sequence[Path] = ()  # new and changed files, in the order in which they are encoded
    replaced: Mapping[str, int] = field(default_factory=dict)  # the id of the old item by the path of a changed file
    moved: tuple[Item, ...] = ()  # new catalogue rows of items whose file was renamed, or touched without a change
    vanished: tuple[int, ...] = ()  # ids of items whose file is gone from the sources
    unchanged: int = 0
    rejected_before: int = 0  # rejected files that have not changed since


def item_of(facts: FileFacts, number: int) -> Item:
    """Return the catalogue row of a file that was read, with the id ``number``."""
    return Item(number, uri_of(facts.path), facts.size, facts.mtime_ns, facts.sha256, facts.width, facts.height)


def find_sources(
    sources: str | Path | Sequence[str | Path], index: str | Path | None
) -> tuple[list[Path], Listing, Path]:
    """Return the sources as paths, the images in them, and the folder of their index.

    Raises:
        UsageError: there is no image, or the folder holds something else than an index.
    """
    paths = [Path(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    listing = find_images(paths)
    check_sources(listing, paths)
    root = local_root(index) if index is not None else new_index_path(paths, Path.cwd())
    if not is_index(root) and not may_become_index(root):
        raise UsageError(f"{root} exists and is no index", advice="name-another-index")
    return paths, listing, root


def check_sources(listing: Listing, sources: Sequence[Path]) -> None:
    """Raise a UsageError if there is no image to index."""
    if not listing.names:
        names = ", ".join(str(source) for source in sources)
        others = f" ({counted(listing.passed_over, 'file')} with other names)" if listing.passed_over else ""
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"no images in {names}{others}: the name of an image ends in {known}")


def find_changes(
    listing: Listing, sources: Sequence[Path], reader: IndexReader | None, retry_rejects: bool = False
) -> Changes:
    """Compare the files in ``listing`` with the items of an index; ``reader`` is None for a new index.

    A file with the same size and time is unchanged. Otherwise the SHA-256 of its bytes decides. Items vanish only if
    they lie below ``sources`` and in no unreadable folder.
    """
    if reader is None:
        return Changes(pending=listing.files)
    return _Comparison(listing, sources, reader, retry_rejects).changes()


class _Comparison:
    """Works on columns of the catalogue, without an object for every unchanged item."""

    def __init__(self, listing: Listing, sources: Sequence[Path], reader: IndexReader, retry_rejects: bool) -> None:
        self._listing, self._reader = listing, reader
        self._rows = {uri: row for row, uri in enumerate(reader.uris())}
        self._states: list[FileState] = list(zip(*(column.tolist() for column in reader.file_states()), strict=True))
        self._rejects = {} if retry_rejects else {reject.uri: reject for reject in reader.rejects()}
        self._gone = self._find_gone(sources)
        self._pending: list[str] = []
        self._replaced: dict[str, int] = {}
        self._moved: list[Item] = []

    def _find_gone(self, sources: Sequence[Path]) -> dict[int, list[Item]]:
        """Return the items whose file is gone, by size: a renamed file is looked for among those of its own size."""
        listed = {uri_of(name) for name in self._listing.names}
        hidden = tuple(map(_below, self._listing.unreadable))
        searched = tuple(_below(os.path.abspath(source)) for source in sources)
        gone = [
            row
            for uri, row in self._rows.items()
            if uri not in listed and _is_in(uri, searched) and not _is_in(uri, hidden)
        ]
        found: dict[int, list[Item]] = {}
        for item in self._reader.items(gone):
            found.setdefault(item.size, []).append(item)
        return found

    def changes(self) -> Changes:
        unchanged, rejected_before, doubtful = self._sort()
        known = [uri for _, uri, _ in doubtful if uri in self._rows]
        items = dict(zip(known, self._reader.items([self._rows[uri] for uri in known]), strict=True))
        for name, uri, state in doubtful:
            if uri in items:
                self._changed(name, items[uri], state)
            else:
                self._new(name, uri, state)
        vanished = tuple(sorted(item.id for items in self._gone.values() for item in items))
        pending = Paths(self._pending)
        return Changes(pending, self._replaced, tuple(self._moved), vanished, unchanged, rejected_before)

    def _sort(self) -> tuple[int, int, list[tuple[str, str, FileState]]]:
        """Count unchanged files and rejects; return these and the name, path and state of every other file."""
        doubtful: list[tuple[str, str, FileState]] = []
        unchanged = rejected_before = 0
        for name in self._listing.names:
            uri, state = uri_of(name), state_of(name)
            row = self._rows.get(uri)
            if row is not None and state == self._states[row]:
                unchanged += 1
            elif row is None and uri in self._rejects and state == _state_then(self._rejects[uri]):
                rejected_before += 1
            else:
                doubtful.append((name, uri, state))
        return unchanged, rejected_before, doubtful

    def _changed(self, name: str, item: Item, state: FileState) -> None:
        if state[0] == item.size and _sha256(Path(name)) == item.sha256:
            self._moved.append(replace(item, mtime_ns=state[1]))
        else:
            self._pending.append(name)
            self._replaced[item.uri] = item.id

    def _new(self, name: str, uri: str, state: FileState) -> None:
        same_size = self._gone.get(state[0], [])
        digest = _sha256(Path(name)) if same_size else None
        for item in same_size:
            if item.sha256 == digest:
                same_size.remove(item)
                self._moved.append(replace(item, uri=uri, mtime_ns=state[1]))
                return
        self._pending.append(name)


def _state_then(reject: Reject) -> FileState:
    return reject.size, reject.mtime_ns


def _below(path: str | Path) -> str:
    """Return the prefix of every path below ``path``."""
    return os.path.join(uri_of(path), "")


def _is_in(uri: str, folders: tuple[str, ...]) -> bool:
    """Whether ``uri`` is one of ``folders``, or lies below one."""
    return os.path.join(uri, "").startswith(folders)


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_bytes(path)[0]).hexdigest()
    except ImageError:
        return None  # the build records the reason
