"""Decide what a build has to do: which files are new, changed, renamed, touched or gone."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from index_store.catalog import Item
from index_store.layout import is_index, may_become_index, new_index_path
from index_store.pull import local_root
from index_store.reader import IndexReader
from retrieval.discovery import Listing, find_images, read_bytes
from retrieval.errors import ImageError, UsageError
from retrieval.images import FileFacts

FileState = tuple[int, int]
"""Size in bytes and mtime_ns; (-1, -1) where the file is not to be had."""


@dataclass(frozen=True)
class Work:
    """What a build does: compute ``pending`` in this order, and bring the catalogue up to date without computing."""

    pending: tuple[Path, ...] = ()
    replaced: Mapping[str, int] = field(default_factory=dict)  # a changed file's path to the id of its old row
    moved: tuple[Item, ...] = ()  # new catalogue rows of items whose file was renamed, or touched and is the same
    vanished: tuple[int, ...] = ()  # ids of items whose file is gone from the sources
    unchanged: int = 0
    rejected_before: int = 0


def uri_of(path: Path) -> str:
    """Return the path as the catalogue holds it; bytes that are no UTF-8 are spelled out (such files are rejected)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def item_of(facts: FileFacts, number: int) -> Item:
    """Return the catalogue's row of a file that was read, with the id ``number``."""
    return Item(number, uri_of(facts.path), facts.size, facts.mtime_ns, facts.sha256, facts.width, facts.height)


def state_of(path: Path) -> FileState:
    """Return the file's state now."""
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


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
    if not listing.files:
        names = ", ".join(str(source) for source in sources)
        passed = f" ({listing.passed_over} files there have names of no image)" if listing.passed_over else ""
        raise UsageError(f"no images in {names}{passed}")


def plan_work(
    listing: Listing, sources: Sequence[Path], reader: IndexReader | None, retry_rejects: bool = False
) -> Work:
    """Compare what is on disk with what is in the index.

    Size and time of change decide; where they leave a doubt, the SHA-256 of the bytes does. Only items below
    ``sources`` can vanish: what was indexed from elsewhere stays, and so does what an unreadable folder hides.
    """
    if reader is None:
        return Work(pending=listing.files)
    return _Planner(listing, sources, reader, retry_rejects).plan()


class _Planner:
    def __init__(self, listing: Listing, sources: Sequence[Path], reader: IndexReader, retry_rejects: bool) -> None:
        self._listing = listing
        self._items = {item.uri: item for item in reader.items()}
        self._rejects = {} if retry_rejects else {reject.uri: reject for reject in reader.rejects()}
        listed = {uri_of(path) for path in listing.files}
        gone = [item for uri, item in self._items.items() if uri not in listed and self._is_below(uri, sources)]
        self._gone: dict[int, list[Item]] = {}  # by size, the one thing that a renamed file shows at once
        for item in gone:
            self._gone.setdefault(item.size, []).append(item)
        self._pending: list[Path] = []
        self._replaced: dict[str, int] = {}
        self._moved: list[Item] = []
        self._unchanged = self._rejected_before = 0

    def _is_below(self, uri: str, sources: Sequence[Path]) -> bool:
        path = Path(uri)
        hidden = any(path.is_relative_to(folder) for folder in self._listing.unreadable)
        return not hidden and any(path.is_relative_to(os.path.abspath(source)) for source in sources)

    def plan(self) -> Work:
        for path in self._listing.files:
            uri, state = uri_of(path), state_of(path)
            if uri in self._items:
                self._known(path, self._items[uri], state)
            elif uri in self._rejects and state == (self._rejects[uri].size, self._rejects[uri].mtime_ns):
                self._rejected_before += 1
            else:
                self._new(path, uri, state)
        return Work(
            pending=tuple(self._pending),
            replaced=self._replaced,
            moved=tuple(self._moved),
            vanished=tuple(sorted(item.id for items in self._gone.values() for item in items)),
            unchanged=self._unchanged,
            rejected_before=self._rejected_before,
        )

    def _known(self, path: Path, item: Item, state: FileState) -> None:
        if state == (item.size, item.mtime_ns):
            self._unchanged += 1
        elif state[0] == item.size and _sha256(path) == item.sha256:
            self._moved.append(replace(item, mtime_ns=state[1]))
        else:
            self._pending.append(path)
            self._replaced[item.uri] = item.id

    def _new(self, path: Path, uri: str, state: FileState) -> None:
        alike = self._gone.get(state[0], [])
        digest = _sha256(path) if alike else None
        for item in alike:
            if item.sha256 == digest:
                alike.remove(item)
                self._moved.append(replace(item, uri=uri, mtime_ns=state[1]))
                return
        self._pending.append(path)


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_bytes(path)[0]).hexdigest()
    except ImageError:
        return None  # the build will say why
