"""Decide what a build has to do: which files are new, changed, renamed, touched or gone."""

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
    """What a build does: compute ``pending`` in this order, and bring the catalogue up to date without computing."""

    pending: Sequence[Path] = ()
    replaced: Mapping[str, int] = field(default_factory=dict)  # a changed file's path to the id of its old row
    moved: tuple[Item, ...] = ()  # new catalogue rows of items whose file was renamed, or touched and is the same
    vanished: tuple[int, ...] = ()  # ids of items whose file is gone from the sources
    unchanged: int = 0
    rejected_before: int = 0


def item_of(facts: FileFacts, number: int) -> Item:
    """Return the catalogue's row of a file that was read, with the id ``number``."""
    return Item(number, uri_of(facts.path), facts.size, facts.mtime_ns, facts.sha256, facts.width, facts.height)


def find_sources(
    sources: str | Path | Sequence[str | Path], index: str | Path | None
) -> tuple[list[Path], Listing, Path]:
    """Return the sources as paths, the images in them, and where their index is or will be.

    Raises:
        UsageError: not one image, or the index's place holds something else.
    """
    paths = [Path(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    listing = find_images(paths)
    check_sources(listing, paths)
    root = local_root(index) if index is not None else new_index_path(paths, Path.cwd())
    if not is_index(root) and not may_become_index(root):
        raise UsageError(f"{root} exists and is no index; name another place with --index")
    return paths, listing, root


def check_sources(listing: Listing, sources: Sequence[Path]) -> None:
    """Raise a UsageError when there is not one image to index."""
    if not listing.names:
        names = ", ".join(str(source) for source in sources)
        passed = f" ({counted(listing.passed_over, 'file')} there with other names)" if listing.passed_over else ""
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"no images in {names}: names that end in {known} are looked for{passed}")


def find_changes(
    listing: Listing, sources: Sequence[Path], reader: IndexReader | None, retry_rejects: bool = False
) -> Changes:
    """Compare what is on disk with what is in the index.

    Size and time of change decide; where they leave a doubt, the SHA-256 of the bytes does. Only items below
    ``sources`` can vanish: what was indexed from elsewhere stays, and so does what an unreadable folder hides.
    """
    if reader is None:
        return Changes(pending=listing.files)
    return _Planner(listing, sources, reader, retry_rejects).plan()


class _Planner:
    """Works on columns of the catalogue: most items are as they were, and need no object of their own."""

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
        """Return the items that are not listed though they should be, by size: so much a renamed file shows at once."""
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

    def plan(self) -> Changes:
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
        known = [uri for _, uri, _ in doubtful if uri in self._rows]
        items = dict(zip(known, self._reader.items([self._rows[uri] for uri in known]), strict=True))
        for name, uri, state in doubtful:
            if uri in items:
                self._changed(name, items[uri], state)
            else:
                self._new(name, uri, state)
        return Changes(
            pending=Paths(self._pending),
            replaced=self._replaced,
            moved=tuple(self._moved),
            vanished=tuple(sorted(item.id for items in self._gone.values() for item in items)),
            unchanged=unchanged,
            rejected_before=rejected_before,
        )

    def _changed(self, name: str, item: Item, state: FileState) -> None:
        if state[0] == item.size and _sha256(Path(name)) == item.sha256:
            self._moved.append(replace(item, mtime_ns=state[1]))
        else:
            self._pending.append(name)
            self._replaced[item.uri] = item.id

    def _new(self, name: str, uri: str, state: FileState) -> None:
        alike = self._gone.get(state[0], [])
        digest = _sha256(Path(name)) if alike else None
        for item in alike:
            if item.sha256 == digest:
                alike.remove(item)
                self._moved.append(replace(item, uri=uri, mtime_ns=state[1]))
                return
        self._pending.append(name)


def _state_then(reject: Reject) -> FileState:
    return reject.size, reject.mtime_ns


def _below(path: str | Path) -> str:
    """Return how the names of all that lies below ``path`` begin."""
    return os.path.join(uri_of(path), "")


def _is_in(uri: str, folders: tuple[str, ...]) -> bool:
    """Say whether ``uri`` is one of these, or below one."""
    return os.path.join(uri, "").startswith(folders)


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_bytes(path)[0]).hexdigest()
    except ImageError:
        return None  # the build will say why
