"""Compare files with an index: which files are new, changed, renamed, copied, touched, back or gone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from index_store.catalog import Item, uri_of
from index_store.locate import is_index, may_become_index, place_of_build
from index_store.reader import IndexReader
from index_store.remote.pull import local_root
from retrieval.errors import UsageError
from retrieval.images.decoding import FileFacts
from retrieval.images.discovery import IMAGE_SUFFIXES, Listing, Paths, find_images
from retrieval.indexing.reports import OnBuildProgress
from retrieval.indexing.sources.hashing import HashedFile, ListedFile, hash_files
from retrieval.indexing.sources.known import KnownFiles, find_lost, find_revivable
from retrieval.indexing.sources.matching import Matches, at_file, match
from retrieval.progress import ignore_progress
from retrieval.settings import BuildSettings
from retrieval.text import counted


@dataclass(frozen=True)
class Changes:
    """The differences between the files and the index."""

    pending: Sequence[Path] = ()  # new and changed files, in the order in which they are encoded
    replaced: Mapping[str, int] = field(default_factory=dict)  # the id of the old item by the path of a changed file
    copies: tuple[HashedFile, ...] = ()  # files whose content another file holds: its vectors and tensors are copied
    moved: tuple[Item, ...] = ()  # new catalogue rows of items whose file was renamed, or touched without a change
    revived: frozenset[int] = frozenset()  # ids of those among ``moved`` that had been removed
    vanished: tuple[int, ...] = ()  # ids of items whose file is gone from the sources
    withheld: Mapping[str, int] = field(default_factory=dict)  # by source: items that are gone, too many to believe it
    cleared: tuple[str, ...] = ()  # paths of rejects that are gone from the sources
    unchanged: int = 0
    rejected_before: int = 0  # rejected files that have not changed since


def item_of(facts: FileFacts, number: int) -> Item:
    """Return the catalogue row of a file that was read, with the id ``number``."""
    size = facts.width, facts.height
    return Item(number, uri_of(facts.path), facts.size, facts.mtime_ns, facts.sha256, *size, facts.ctime_ns)


def find_sources(
    sources: str | Path | Sequence[str | Path], index: str | Path | None, run: BuildSettings
) -> tuple[list[Path], Listing, Path]:
    """Return the sources as paths, the images in them, and the folder of their index.

    Raises:
        UsageError: there is no image, or the folder holds something else than an index.
    """
    paths = [Path(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    listing = find_images(paths)
    root = local_root(index) if index is not None else place_of_build(paths, Path.cwd())
    if not is_index(root) and not may_become_index(root):
        raise UsageError(f"{root} exists and is no index", advice="name-another-index")
    if not listing.names and not (run.gone and is_index(root)):
        raise _no_images(listing, paths, is_index(root))
    return paths, listing, root


def _no_images(listing: Listing, sources: Sequence[Path], is_update: bool) -> UsageError:
    names = ", ".join(str(source) for source in sources)
    others = f" ({counted(listing.passed_over, 'file')} with other names)" if listing.passed_over else ""
    known = ", ".join(sorted(IMAGE_SUFFIXES))
    text = f"no images in {names}{others}: the name of an image ends in {known}"
    return UsageError(text, advice="remove-gone") if is_update else UsageError(text)


def find_changes(
    listing: Listing,
    sources: Sequence[Path],
    reader: IndexReader | None,
    run: BuildSettings,
    on_progress: OnBuildProgress = ignore_progress,
) -> Changes:
    """Compare the files in ``listing`` with the items of an index; ``reader`` is None for a new index.

    A file with the same size and times is unchanged. Otherwise the SHA-256 of its bytes decides: an item whose own file
    is gone, or holds other bytes, follows its content to another path. Items vanish only if they lie below ``sources``
    and in no unreadable folder, and if most of a source is still there or ``run.gone`` is set; or if their folder was
    moved to ``sources`` without them.
    """
    if reader is None:
        files = [ListedFile(name, uri_of(name), listing.state_of(name)) for name in listing.names]
        found = match(hash_files(files, np.empty(0, np.int64), on_progress), (), ())
        return Changes(pending=_names(found.others), copies=found.copies)
    return _Comparison(KnownFiles(listing, sources, reader, run)).changes(on_progress)


class _Comparison:
    """Works on columns of the catalogue, without an object for every unchanged item."""

    def __init__(self, known: KnownFiles) -> None:
        self._known, self._reader = known, known.reader
        self._touched: list[Item] = []  # new rows of items whose file was touched
        self._displaced: dict[str, Item] = {}  # by path: items whose file holds other bytes now
        self._unchanged = known.unchanged

    def changes(self, on_progress: OnBuildProgress) -> Changes:
        known, items = self._known, self._items_there()
        files = hash_files(known.doubtful, known.sizes, on_progress, unsized=known.may_have_moved or bool(items))
        rest = [file for file in files if not self._is_touched(file, items.get(file.uri))]
        found, revived = self._match(rest)
        taken = {item.id for item in found.moved.values()}
        replaced = {
            file.uri: self._displaced[file.uri].id
            for file in (*found.others, *found.copies)
            if file.uri in self._displaced and self._displaced[file.uri].id not in taken
        }
        overwritten = {item.id for item in self._displaced.values()} - taken - set(replaced.values())
        gone, withheld = known.gone_but(taken)
        return Changes(
            pending=_names(found.others),
            replaced=replaced,
            copies=found.copies,
            moved=(*self._touched, *found.moved.values()),
            revived=frozenset(revived & taken),
            vanished=tuple(sorted({*gone, *overwritten, *known.left_behind(found.moved.values())})),
            withheld=withheld,
            cleared=known.cleared,
            unchanged=self._unchanged,
            rejected_before=known.rejected_before,
        )

    def _items_there(self) -> dict[str, Item]:
        """Return the items at the paths of doubtful files, by path."""
        rows = [self._known.rows[file.uri] for file in self._known.doubtful if file.uri in self._known.rows]
        return {item.uri: item for item in self._reader.items(rows)}

    def _is_touched(self, file: HashedFile, item: Item | None) -> bool:
        """Say whether a file still holds the bytes of the item at its path; note its new times, or the item it held."""
        if item is None:
            return False
        if file.sha256 != item.sha256:
            self._displaced[file.uri] = item
            return False
        if file.state == (item.size, item.mtime_ns, item.ctime_ns):
            self._unchanged += 1
        else:
            self._touched.append(at_file(item, file))
        return True

    def _match(self, files: Sequence[HashedFile]) -> tuple[Matches, frozenset[int]]:
        """Look for the content of ``files`` in the index; also return the ids of removed items that may be revived."""
        digests = {file.sha256 for file in files if file.sha256 is not None}
        if not digests:
            return match(files, (), ()), frozenset()
        alike = self._reader.items(self._reader.catalog.with_content(digests))
        displaced = {item.id for item in self._displaced.values()}
        lost = find_lost(self._known, alike, displaced)
        free = [item for item in alike if item.id in lost]
        held = {item.sha256 for item in alike if item.id not in lost}
        needed = Counter(file.sha256 for file in files) - Counter(item.sha256 for item in free)
        removed = find_revivable(self._reader, self._known.removed, {d for d in needed if d is not None})
        held |= {item.sha256 for retired in self._known.retired for item in retired.like(digests)}
        return match(files, [*free, *removed], held), frozenset(item.id for item in removed)


def _names(files: Sequence[HashedFile]) -> Paths:
    return Paths([file.name for file in files])
